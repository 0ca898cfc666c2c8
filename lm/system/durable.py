"""Names that no power cut takes: folders are made and things are renamed here, and synced.

    durable.make_folder(folder)
    durable.rename(temporary, final)

By the letter of POSIX a name is safe once its folder is synced, and a file once it is itself.
"""

import errno
import functools
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents where they are not there, each name durable in its folder."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=mode)
    for path in reversed(new):
        sync_folder(path.parent)


def rename(old: Path, new: Path) -> None:
    """Give a file or folder another name, durably; a file of that name is replaced in one step."""
    os.replace(old, new)
    sync_folder(new.parent)
    if old.parent != new.parent:
        sync_folder(old.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (a rename is not, until its folder is synced).

    Some network and FUSE file systems cannot: that is said once.
    """
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
        _say_unsynced(error.strerror)
    finally:
        os.close(fd)


def sync_tree(folder: Path) -> None:
    """Make all that is in a folder durable, at any depth."""
    for base, _, names in os.walk(folder):
        for name in names:
            with open(Path(base, name), "rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(base))


@functools.cache
def _say_unsynced(reason: str) -> None:
    log.warning(
        f"note: this file system does not sync folders ({reason}): if the machine loses its power, "
        "the newest files may be gone"
    )
