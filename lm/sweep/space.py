"""The settings of a search, and what it searches."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lm.settings import Settings, one_of, within


@dataclass
class TunerConfig(Settings):
    """hydra/sweeper=lm: a search with Optuna."""

    group: ClassVar[str] = "hydra.sweeper"
    n_trials: int = within(20, 1)  # in all, also after a restart; failed and pruned ones count
    n_jobs: int = within(1, 1)  # trials at a time, for launchers that run several
    sampler: str = one_of("tpe", "random", "grid")
    n_startup: int = within(8, 1)  # random trials before tpe begins to learn from them
    seed: int = within(0, 0)  # of the sampler
    pruner: str = one_of("none", "median", "hyperband")  # ends trials that fall behind
    warmup: int = within(0, 0)  # steps of training before which none is ended
    storage: str = ""  # another file for the journal, such as one that several sweeps share
    params: dict[str, Any] = field(default_factory=dict)  # settings to search, from a file
