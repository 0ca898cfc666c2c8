"""Every error that a user can meet. Each ends a command with exit code 2 unless it names another.

| exit code | error |
|---|---|
| 0 | Pruned, which ends a trial and not the search |
| 1 | OutOfMemoryError, LostRankError, SilentServerError |
| 2 | ConfigError, OtherRunError, LockedError, DamagedError, PointerError, other Value-, OSErrors |
| 3 | NonFiniteError |
| 4 | StorageError, and other OSErrors of a full disk |
| 5 | NoCheckpointError |
| 128 + n | signals.Stopped, by the signal n |
"""

import errno

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # of an OSError: there is no room
STORAGE = FULL | {errno.EROFS}


class ConfigError(ValueError):
    """A setting is not possible: one line with the key, the value and what is allowed."""


class OtherRunError(ConfigError):
    """The directory of a new run holds a run with other settings."""


class LockedError(ValueError):
    """Another process writes to the run directory."""


class DamagedError(ValueError):
    """A file is not what was written: its checksum, its form or its size is another."""

    def __init__(self, text: str) -> None:
        # The text may repeat what a stranger wrote, of any length.
        super().__init__(text if len(text) < 2000 else f"{text[:1900]}...")


class PointerError(ValueError):
    """In place of a file lies the pointer of Git LFS or git-annex; the file was not fetched."""


class NonFiniteError(ArithmeticError):
    """A loss, gradient or weight is NaN or infinite."""

    exit_code = 3
    on_all_ranks = True  # the numbers are those of all processes


class StorageError(OSError):
    """The last checkpoint, or the record of the run, could not be written."""

    exit_code = 4


class NoCheckpointError(ValueError):
    """A run has checkpoints, and none of them is intact."""

    exit_code = 5


class OutOfMemoryError(RuntimeError):
    """A step did not fit the memory; names what was needed, and what would need less."""

    exit_code = 1


class LostRankError(ConnectionError):
    """A process of the run was killed, or did not answer in time."""

    exit_code = 1


class SilentServerError(ConnectionError):
    """A W&B server that a command cannot do without does not answer."""

    exit_code = 1


class Pruned(Exception):
    """Ends a trial that falls behind the other trials of its study."""


def no_code_for(key: str, value: object) -> ValueError:
    """The error where the settings allow a choice that the code does not know: it is not taken for
    another one."""
    return ValueError(f"{key}={value} is among the choices, but there is no code for it yet")


def mark_on_all_ranks(error: BaseException) -> None:
    """Note that every process of the run raises this error, so that they end together."""
    vars(error)["on_all_ranks"] = True


def is_on_all_ranks(error: BaseException) -> bool:
    """Whether every process of the run raises this error."""
    return getattr(error, "on_all_ranks", False)
