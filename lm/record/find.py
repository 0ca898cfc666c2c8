"""Which run directory a name means; loads nothing heavy."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lm.config import RESOLVED
from lm.system import files
from lm.system.text import shell_word

REMOTE = "wandb:"  # at the start of the name of a model kept in W&B
SKIPPED_FOLDERS = ("cache", "wandb")  # hold no runs of ours


def is_name(name: str) -> bool:
    """Whether this can be the name of a run: a path that exists, "latest", or one of W&B."""
    is_known = name == "latest" or name.startswith(REMOTE)
    return is_known or os.path.lexists(files.expanded(name))


def run_directories(roots: Iterable[Path]) -> Iterator[Path]:
    """Every run directory at or below the given folders."""
    for root in roots:
        for folder, below, names in os.walk(root):
            if RESOLVED in names:
                below.clear()
                yield Path(folder)
            below[:] = [name for name in below if name not in SKIPPED_FOLDERS]


def find_run(name: str) -> Path:
    """The run directory called `name`; "latest" is the one started last under outputs/.

    Raises ValueError if there is none.
    """
    if name == "latest":
        return _latest()
    if not name.strip():
        raise ValueError("the name of the run is empty: give its directory, or latest")
    path = Path(files.expanded(name))
    if (path / RESOLVED).is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"there is no run directory {name!r}")
    if arms := sorted(file.parent.name for file in path.glob(f"*/{RESOLVED}")):
        raise ValueError(
            f"{name} is a sweep: choose one of its arms, such as "
            f"{shell_word(f'run={path / arms[0]}')}; python -m lm.report {shell_word(name)} ranks "
            "them"
        )
    raise ValueError(f"{name} is not a run directory: it has no {RESOLVED}")


def _latest() -> Path:
    found = list(run_directories([Path("outputs")]))
    if not found:
        raise ValueError("latest: there is no run under outputs/; python -m lm.train makes one")
    return max(found, key=lambda path: (path / RESOLVED).stat().st_mtime)
