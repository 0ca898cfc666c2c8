"""wandb.json: which W&B run a run directory has. A copy of a directory gets one of its own.

record, saved = wandb_record.begin(out)     # of this start and of the last; None: a new W&B run
wandb_record.write(out, record)
"""

import contextlib
import logging
import os
import re
import secrets
from pathlib import Path

from lm.record import wandb_names
from lm.record.schemas import WandbRecord
from lm.system import files
from lm.system.errors import DamagedError

log = logging.getLogger(__name__)


def begin(out: Path) -> tuple[WandbRecord, WandbRecord | None]:
    """The record of this start, and that of the last start of the same W&B run, if there was one.

    It is written before W&B hears of it: a start that is cut short leaves no second run.
    """
    saved = _read(out)
    uid = saved.id if saved else secrets.token_hex(4)
    if saved and is_copy(out, saved):
        uid = secrets.token_hex(4)
        log.info(
            f"W&B: {out} is a copy of {saved.home}, so it gets a W&B run of its own, "
            f"{uid}, and leaves {saved.id} alone"
        )
        saved = None
    record = at_home(out, uid)
    record.names = saved.names if saved else wandb_names.VERSION
    if saved:
        record.first = saved.first
        record.name = saved.name
    write(out, record)
    return record, saved


def _read(out: Path) -> WandbRecord | None:
    """What wandb.json says of the last start in `out`; None where it has no W&B run yet."""
    path = out / WandbRecord.file
    if not path.exists():
        return None
    saved = files.read_record(path, WandbRecord)
    if not re.fullmatch(r"[\w-]{0,64}", saved.id):  # it becomes part of a path
        raise ValueError(f"{path} has an id that is none: {saved.id[:64]!a}")
    return saved if saved.id else None


def write(out: Path, record: WandbRecord) -> None:
    files.atomic_write(out / WandbRecord.file, files.to_json(record) + "\n")


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
