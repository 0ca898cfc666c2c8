"""Which run directory a name means; loads nothing heavy."""

from pathlib import Path

from lm.config import RESOLVED


def find_run(name: str) -> Path:
    """The run directory called `name`; "latest" is the one started last under outputs/."""
    if name != "latest":
        if (Path(name) / RESOLVED).is_file():
            return Path(name)
        if not Path(name).is_dir():
            raise ValueError(f"there is no run directory {name!r}")
        if arms := sorted(path.parent.name for path in Path(name).glob(f"*/{RESOLVED}")):
            raise ValueError(
                f"{name} is a sweep: choose one of its arms, such as run={Path(name) / arms[0]}; "
                f"python -m lm.report {name} ranks them"
            )
        raise ValueError(f"{name} is not a run directory: it has no {RESOLVED}")
    outputs = Path("outputs")
    places = ("runs/*/*", "runs/*", "sweeps/*/*/*", "sweeps/*/*")
    found = [path for place in places for path in outputs.glob(f"{place}/{RESOLVED}")]
    if not found:
        raise ValueError("latest: there is no run under outputs/; python -m lm.train makes one")
    return max(found, key=lambda path: path.stat().st_mtime).parent
