"""Which run directory a name means; loads nothing heavy."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lm.config import RESOLVED
from lm.corpora import generated
from lm.system import files
from lm.system.text import shell_word

REMOTE = "wandb:"  # at the start of the name of a model kept in W&B


def is_name(name: str) -> bool:
    """Whether this can be the name of a run: a path that exists, "latest", or one of W&B."""
    is_known = name == "latest" or name.startswith(REMOTE)
    return is_known or os.path.lexists(files.expanded(name))


def run_directories(roots: Iterable[Path]) -> Iterator[Path]:
    """Every run directory at or below the given folders."""
    for root in roots:
        for folder, below, names in walk(root):
            if RESOLVED in names:
                below.clear()
                yield folder


def walk(root: str | Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """os.walk without what has copies of a run's files and is none: stages of our cache, models
    downloaded into it, and what W&B's client keeps of a run; and without any other cache, as that
    of PyTorch's compiler has thousands of folders."""
    for folder, below, names in os.walk(root):
        path = Path(folder)
        if generated.CACHE_TAG in names:
            below.clear()
            continue
        below[:] = [name for name in below if not _is_copy(path / name)]
        yield path, below, names


def _is_copy(folder: Path) -> bool:
    is_of_wandb = folder.name == "files" and generated.WANDB.fullmatch(folder.parent.name)
    is_cached = generated.STAGE.fullmatch(folder.name)
    return bool(is_of_wandb or is_cached) or files.is_temporary(folder)


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
    if arms := sorted(run_directories([path])):
        raise ValueError(
            f"{name} is a sweep: choose one of its arms, such as "
            f"{shell_word(f'run={arms[0]}')}; python -m lm.report {shell_word(name)} ranks "
            "them"
        )
    raise ValueError(f"{name} is not a run directory: it has no {RESOLVED}")


def _latest() -> Path:
    found = list(run_directories([Path("outputs")]))
    if not found:
        raise ValueError("latest: there is no run under outputs/; python -m lm.train makes one")
    return max(found, key=lambda path: (path / RESOLVED).stat().st_mtime)
