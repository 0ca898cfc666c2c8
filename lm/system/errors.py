"""Every error that a user can meet, and its exit code where that is not 2."""


class ConfigError(ValueError):
    """A setting that cannot be: one line with the key, the value and what is allowed."""


class OtherRunError(ConfigError):
    """A directory holds a run with other settings."""


class LockedError(ValueError):
    """Another process writes a directory."""


class DamagedError(ValueError):
    """A folder whose files are not those its manifest lists."""

    def __init__(self, text: str) -> None:  # which may repeat what a stranger wrote
        super().__init__(text if len(text) < 2000 else f"{text[:1900]}...")


class NonFiniteError(ArithmeticError):
    """A loss, gradient or weight is not a number."""

    exit_code = 3
    on_all_ranks = True  # the numbers are those of all processes


class StorageError(OSError):
    """The last checkpoint, or the record of the run, could not be written."""

    exit_code = 4


class NoCheckpointError(ValueError):
    """There were checkpoints, and none is intact."""

    exit_code = 5


class OutOfMemoryError(RuntimeError):
    """Names what was asked of the memory, and what would be less."""

    exit_code = 1


class LostRankError(ConnectionError):
    """A process of the run was killed, or did not answer."""

    exit_code = 1


class Pruned(Exception):
    """Ends a trial that falls behind the others of its study."""
