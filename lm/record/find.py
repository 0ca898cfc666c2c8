"""Which run directory a name means; loads nothing heavy."""

from pathlib import Path

from lm.config import RESOLVED

PLACES = ("runs/*/*", "runs/*", "sweeps/*/*/*", "sweeps/*/*")  # of runs, under outputs/


def find_run(name: str) -> Path:
    """The run directory called `name`; "latest" is the one started last under outputs/.

    Raises ValueError if there is none.
    """
    if name == "latest":
        return _latest()
    path = Path(name)
    if (path / RESOLVED).is_file():
        return path
    if not path.is_dir():
        raise ValueError(f"there is no run directory {name!r}")
    if arms := sorted(file.parent.name for file in path.glob(f"*/{RESOLVED}")):
        raise ValueError(
            f"{name} is a sweep: choose one of its arms, such as run={path / arms[0]}; "
            f"python -m lm.report {name} ranks them"
        )
    raise ValueError(f"{name} is not a run directory: it has no {RESOLVED}")


def _latest() -> Path:
    outputs = Path("outputs")
    found = [file for place in PLACES for file in outputs.glob(f"{place}/{RESOLVED}")]
    if not found:
        raise ValueError("latest: there is no run under outputs/; python -m lm.train makes one")
    return max(found, key=lambda file: file.stat().st_mtime).parent
