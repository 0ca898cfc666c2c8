"""One command as many jobs of Hydra's launchers, each with its number: `lm.pack -m`.

    is_asked(words)                       # whether -m stands among them
    failures = spread(words, 64, task)    # task(composed) in each; what it returns is a failure

The jobs divide nothing among themselves but their numbers, so any of them may be started again.
"""

import os
import secrets
from collections.abc import Callable, Sequence

from omegaconf import DictConfig

from lm.launch import compose, hydra_internals
from lm.launch.words import as_typed

FOLDER = "outputs/packing"  # what a launcher writes of its jobs, such as Slurm's logs


def is_asked(words: Sequence[str]) -> bool:
    return "-m" in words or "--multirun" in words


def spread(words: list[str], n: int, task: Callable[[DictConfig], str]) -> list[str]:
    """Start n jobs by hydra/launcher=...; what their tasks returned, without the empty texts.

    Raises ConfigError where the words are no run.
    """
    os.environ.setdefault("LM_UID", secrets.token_hex(2))
    compose.register(words)
    args = compose.read_arguments(as_typed(words))
    folder = f"hydra.sweep.dir={FOLDER}/${{now:%Y-%m-%d_%H-%M-%S}}-${{oc.env:LM_UID}}"
    overrides = [folder, *args.overrides, *compose.search_path_override(args.config_dir)]
    with (
        compose.errors_in_one_line(words),
        hydra_internals.trusted_targets(),
        compose.composing(),
    ):
        return [failure for failure in hydra_internals.launch(overrides, n, task) if failure]
