"""The settings of python -m lm.lens."""

from dataclasses import dataclass, field

from lm.settings import Settings, at_least, setting, within


@dataclass
class LensConfig(Settings):
    """python -m lm.lens: see what a model does with a text, from its bytes to probabilities.

    Settings of lm.train, such as model=gru model.n_layer=2, show such a model before training.
    """

    run: str = ""  # a run directory; empty: the newest, unless settings describe a model
    checkpoint: str = "best"
    prompt: str | None = None  # None: an example that suits the text
    layer: int = within(-1, -1024, 1023)  # the one to begin with; -1 is the last
    out: str = setting("", path=True)  # the page; empty: lens.html in the run, or here
    seed: int = at_least(0, 0)  # of the draws that the page shows: lm.sample's
    temperature: float = at_least(0.8, 0.0, 1e30)  # where its controls stand at first
    top_k: int = at_least(0, 0)
    top_p: float = within(1.0, 1e-6, 1.0)
    trust: bool = False  # read what the settings of a run from elsewhere name
    overrides: list[str] = field(default_factory=list)  # the settings of a model without a run
