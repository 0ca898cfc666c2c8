"""The arms of a sweep: where each has its directory, and what became of it.

arms.register(root, number, out)     # by the arm itself, before it starts
arms.places(root)                    # the directories of all arms, by their names
arms.read_result(out / RESULT)

hydra.sweep.subdir may put an arm anywhere, so its number alone does not tell where it is.
"""

import logging
import math
import os
from pathlib import Path
from typing import Literal

import msgspec

from lm.config import RESOLVED
from lm.system import files, text
from lm.system.errors import DamagedError

log = logging.getLogger(__name__)
RESULT = "result.json"  # what an arm of a sweep leaves in its directory
ARMS = ".arms"  # in the sweep's directory: NUMBER.json for each arm that is elsewhere than NUMBER


class ArmResult(msgspec.Struct):
    """What became of one arm: its result.json, which may hold more keys than these."""

    overrides: list[str] = []
    status: Literal["ok", "failed", "pruned"] = "ok"
    value: float | None = None  # the best val/bpb; a number if the status is ok
    error: str | None = None


class Place(msgspec.Struct):
    """A file in .arms/: where an arm has its directory."""

    directory: str  # as seen from the sweep's directory, or absolute where it is not below it


def read_result(path: Path) -> ArmResult:
    """The result.json at `path`; DamagedError names the file and what is wrong in it."""
    result = files.read_record(path, ArmResult)
    if result.status == "ok" and (result.value is None or not math.isfinite(result.value)):
        raise DamagedError(f"{path} is not what was written: it is ok and has no score")
    if result.error is not None:
        result.error = text.printable(result.error)
    return result


def register(root: Path, number: int, out: Path) -> None:
    """Note in the sweep's directory where an arm has its own, unless its number says it."""
    path = root / ARMS / f"{number}.json"
    called = name(root, out)
    if called == str(number):
        path.unlink(missing_ok=True)
        return
    files.make_folder(path.parent)
    files.atomic_write(path, files.to_json(Place(called)) + "\n")


def group(root: Path) -> str:
    """The name of a sweep in W&B, where its arms are a group."""
    return "-".join(Path(files.public(str(root))).parts[-2:])


def name(root: Path, out: Path) -> str:
    """What an arm is called: its directory as seen from the sweep's, or the absolute one."""
    path = Path(os.path.abspath(out))
    base = Path(os.path.abspath(root))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def place(root: Path, number: int | str) -> Path:
    """The directory of an arm: the one it has noted, else the one that its number names."""
    path = root / ARMS / f"{number}.json"
    if os.path.lexists(path):
        try:
            return root / files.read_record(path, Place).directory
        except DamagedError as error:
            log.warning(f"{error}")
    return root / str(number)


def places(root: Path) -> dict[str, Path]:
    """The directories of a sweep's arms by their names, those of older versions included."""
    found = {path.parent for file in (RESULT, RESOLVED) for path in root.glob(f"*/{file}")}
    noted = [place(root, path.stem) for path in root.glob(f"{ARMS}/*.json")]
    found.update(path for path in noted if path.is_dir())
    return {name(root, path): path for path in found}
