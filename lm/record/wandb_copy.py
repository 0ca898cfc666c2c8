"""Whether a run directory is a copy, so that the W&B run of the first one is left to it.

record = wandb_copy.at_home(out, "a1b2c3d4")      # a WandbRecord that knows its directory
wandb_copy.is_copy(out, record)                   # False: it is the same one, also if it was moved
"""

import contextlib
import os
from pathlib import Path

from lm.record.schemas import WandbRecord
from lm.system import files
from lm.system.errors import DamagedError


def at_home(out: Path, uid: str) -> WandbRecord:
    """The record of the W&B run `uid` of this directory."""
    home, at = os.path.realpath(out), out.stat()
    return WandbRecord(uid, home=home, inode=at.st_ino, device=at.st_dev, host=files.HOST)


def is_copy(out: Path, record: WandbRecord) -> bool:
    """Whether the record was written in another directory, which has it still, or may have.

    A directory that was moved keeps its inode, unless it went to another disk: then the place
    where it was is empty. On another machine that says nothing. On the same disk the first one of
    a copy may have been moved, or deleted.
    """
    home = Path(record.home)
    if not record.home or os.path.realpath(out) == record.home:
        return False
    with contextlib.suppress(DamagedError):
        if files.read_record(home / WandbRecord.file, WandbRecord).id == record.id:
            return not os.path.samefile(home, out)
    at = out.stat()
    went_to_another_disk = record.host == files.HOST and at.st_dev != record.device
    return at.st_ino != record.inode and not went_to_another_disk
