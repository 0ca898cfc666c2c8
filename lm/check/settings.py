"""The settings of python -m lm.check."""

from dataclasses import dataclass, field

from lm.settings import Settings, one_of, within


@dataclass
class CheckConfig(Settings):
    """python -m lm.check: can this model, or this run, be trusted? Exit code 1 if not.

    model=NAME and other settings of lm.train check a model, run=DIR a training run.
    """

    run: str = ""  # a run directory, for the training doctor
    checkpoint: str = "last"  # what training ended with; best, or a step
    steps: int = within(600, 1)  # updates of the training on the grammar corpus
    grammar: bool = True  # do that training: the only slow part
    device: str = one_of("auto", "cpu", "cuda", "mps")
    overrides: list[str] = field(default_factory=list)  # the settings of the model to check
