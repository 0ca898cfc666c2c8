"""One command as many jobs of Hydra's launchers, each with its number: `lm.pack -m`.

    is_asked(words)                       # whether -m stands among them
    failures = spread(words, 64, task)    # task(cfg, number) in each; a text is its failure

The jobs divide nothing among themselves but their numbers, so any of them may be started again.
"""

import functools
import os
import secrets
from collections.abc import Callable, Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lm.config import Config
from lm.launch import compose, hydra_internals
from lm.launch.words import as_typed

FOLDER = "outputs/packing"  # what a launcher writes of its jobs, such as Slurm's logs
Task = Callable[[Config, int], str]  # the run and the job's number -> what failed, "" if nothing


def is_asked(words: Sequence[str]) -> bool:
    return "-m" in words or "--multirun" in words


def spread(words: list[str], n: int, task: Task) -> list[str]:
    """Start n jobs by hydra/launcher=...; what failed in them.

    Raises ConfigError where the words are no run.
    """
    os.environ.setdefault("LM_UID", secrets.token_hex(2))
    compose.register(words)
    args = compose.read_arguments(as_typed(words))
    folder = f"hydra.sweep.dir={FOLDER}/${{now:%Y-%m-%d_%H-%M-%S}}-${{oc.env:LM_UID}}"
    overrides = [folder, *args.overrides, *compose.search_path_override(args.config_dir)]
    with (
        compose.errors_in_one_line(words),
        hydra_internals.errors_of_launcher(),
        hydra_internals.trusted_targets(),
        compose.composing(),
    ):
        failures = hydra_internals.launch(overrides, n, functools.partial(_run, task))
    return [failure for failure in failures if failure]


def _run(task: Task, composed: DictConfig) -> str:
    """One of the jobs, in its own process or on its own machine."""
    return task(compose.load(composed), HydraConfig.get().job.num)
