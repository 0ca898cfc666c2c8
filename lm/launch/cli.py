"""The command line of the verbs that compose nothing: key=value words into one dataclass.

cli.main(SampleConfig, command)
"""

import contextlib
import dataclasses
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from omegaconf import OmegaConf

from lm.settings import Settings, typed, unknown
from lm.system import environment
from lm.system.environment import launch_rank
from lm.system.errors import STORAGE, ConfigError

S = TypeVar("S", bound=Settings)


def main(cls: type[S], command: Callable[[S], object]) -> None:
    """Run `command` with the settings of the command line; an error is one line and exit code 2."""
    prepare_streams()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    words = sys.argv[1:]
    if asks_for_help(words):
        print(usage(cls))
        return
    with errors_in_one_line(), interruptible():  # Ctrl-C may come between the two
        command(parse(cls, import_own_modules(words)))


# ------------------------------------------------------------------------------- the process


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt inside; around it ends the process at once.

    See signals.end_on_ctrl_c, with which the commands start.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def prepare_streams() -> None:
    """Let what cannot be printed, as the terminal is gone or the disk full, cost that line alone.

    Warnings become one line each.
    """
    warnings.showwarning = show_warning
    logging.raiseExceptions = False  # or each such line would be a page of tracebacks
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: a file of the run could get its number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Log a warning as one line, without the place in our code that gave it."""
    logging.getLogger("lm").warning(f"note: {message}")


def asks_for_help(words: Sequence[str]) -> bool:
    return "-h" in words or "--help" in words


def import_own_modules(words: Sequence[str]) -> list[str]:
    """Import the module of each word `import=MODULE`, a part of the user's own; return the others.

    The module is looked for in the current directory too, in this process and in those that it
    starts. Only the command line can name one, since to import is to run code; no file ever does.
    """
    kept = []
    names = []
    for word in words:
        key, _, name = word.partition("=")
        if key == "import":
            _import_own(name)
            names.append(name)
        else:
            kept.append(word)
    os.environ.pop(environment.IMPORTS, None)
    if names:
        os.environ[environment.IMPORTS] = " ".join(names)
    return kept


def _import_own(name: str) -> None:
    here = os.getcwd()  # where my_models/ lies, for installed commands too
    sys.path.insert(0, here)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there and lacks something itself
        raise ConfigError(
            f"import={name}: there is no such module under {here} or installed"
        ) from None
    finally:
        sys.path.pop(0)
    if here not in sys.path:  # the processes of a sweep or of several GPUs import it again
        sys.path.append(here)
        paths = [os.environ.get("PYTHONPATH"), here]
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


# ---------------------------------------------------------------------------------- the words


def parse(cls: type[S], words: Sequence[str]) -> S:
    """The dataclass `cls` with the fields that the words set; raises ConfigError.

    A str field takes its text as it stands: `prompt=The king: a` holds a colon, not a mapping.
    A dataclass with a list `overrides` gets the words there that are not its own: those of a run.
    """
    types = {f.name: f.type for f in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    overrides = []
    for word in words:
        key, equals, text = word.partition("=")
        if "overrides" in types and key not in types:
            overrides.append(word)
            continue
        if not equals:
            raise ConfigError(f"{word} is not key=value (known: {', '.join(types)})")
        problems = unknown(cls, {key: text}, "")
        if problems:
            raise ConfigError(problems[0])
        is_text = types[key] in (str, str | None)
        values[key] = text if is_text else _plain(text)
    if overrides:
        values["overrides"] = overrides
    return cls(**typed(cls, values, ""))


def _plain(text: str) -> object:
    """The value of a word as YAML reads it: a number, a bool, a list."""
    return OmegaConf.create(f"value: {text}").value if text else None


def change(settings: S, word: str) -> S:
    """The same settings with one of them changed."""
    key = word.partition("=")[0]
    return dataclasses.replace(settings, **{key: getattr(parse(type(settings), [word]), key)})


def usage(cls: type[Settings]) -> str:
    """The command's purpose, then each setting and its default."""
    defaults = cls()
    lines = [(cls.__doc__ or "").strip(), "", "settings, as key=value:"]
    for f in dataclasses.fields(cls):
        if f.name != "overrides":
            lines.append(f"  {f.name}={getattr(defaults, f.name)}")
    return "\n".join(lines)


# --------------------------------------------------------------------------------- the errors


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:  # which need not be loaded to ask
        return isinstance(error, MemoryError)
    from lm.system import devices

    return devices.is_out_of_memory(error)


class errors_in_one_line:
    """Prints what the user can mend in one line; our own mistakes keep their traceback.

    Exit code 2, or the error's own: 1 no memory, 3 non-finite numbers, 4 storage, 5 no intact
    checkpoint.
    HYDRA_FULL_ERROR=1 shows the traceback of every error.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None or os.environ.get("HYDRA_FULL_ERROR"):
            return
        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        text = " ".join(str(error).split())
        code = 2
        if not isinstance(error, (ValueError, OSError)) and not hasattr(error, "exit_code"):
            if not _is_out_of_memory(error):
                return
            text = f"out of memory: {text or 'this command needs more than there is'}"
            code = 1
        if isinstance(error, OSError) and error.errno in STORAGE:
            code = 4
            if not error.filename:
                text += ": make room, or set LM_CACHE_DIR to a folder on another disk"
        sys.stdout.flush()
        rank = launch_rank()
        if rank == 0:
            print(f"error: {text}", file=sys.stderr)
        elif not isinstance(error, ConfigError):  # rank 0 has printed that one too
            print(f"error: rank {rank}: {text}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", code))
