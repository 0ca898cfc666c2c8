"""The command line of the verbs that compose nothing: key=value words into one dataclass.

cli.main(SampleConfig, command)
"""

import contextlib
import dataclasses
import errno
import importlib
import logging
import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import gettempdir
from types import TracebackType
from typing import Any, TypeVar

from lm.launch.logs import PlainFormatter
from lm.settings import Settings
from lm.settings.reading import typed, unknown
from lm.system import environment, files, streams
from lm.system.environment import launch_rank
from lm.system.errors import STORAGE, ConfigError
from lm.system.text import as_utf8

DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
NO_ROOM = "this command needs more than there is"
MORE = "HYDRA_FULL_ERROR=1 shows the whole traceback"
S = TypeVar("S", bound=Settings)


def main(cls: type[S], command: Callable[[S], object], paths: str = "") -> None:
    """Run `command` with the settings of the command line; an error is one line and exit code 2.

    Words that are no key=value are those of the list `paths`, if the settings have one.
    """
    prepare_streams()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    with errors_in_one_line(), interruptible():  # Ctrl-C may come between the two
        command(parse(cls, import_own_modules(sys.argv[1:]), paths))


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

    What the terminal has no character for is replaced. Warnings become one line each.
    """
    warnings.showwarning = show_warning
    logging.raiseExceptions = False  # or each such line would be a page of tracebacks
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: a file of the run could get its number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    streams.replace_what_has_no_code()


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Log a warning as one line, without the place in our code that gave it."""
    logging.getLogger("lm").warning(f"note: {message}")


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
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"import={name}: give the name of a module, such as my_models.mine")
    sys.path.insert(0, here)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed_import(name, error) from error
        raise ConfigError(
            f"import={name}: there is no such module under {here} or installed"
        ) from None
    except Exception as error:  # a stranger's code may raise anything
        raise _failed_import(name, error) from error
    finally:
        sys.path.pop(0)
    if here not in sys.path:  # the processes of a sweep or of several GPUs import it again
        sys.path.append(here)
        paths = [os.environ.get("PYTHONPATH"), here]
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


def _failed_import(name: str, error: Exception) -> ConfigError:
    return ConfigError(f"import={name}: {_kind_and_place(error)}: {error}; {MORE}")


# ---------------------------------------------------------------------------------- the words


def parse(cls: type[S], words: Sequence[str], paths: str = "") -> S:
    """The dataclass `cls` with the fields that the words set; raises ConfigError.

    A str field takes its text as it stands: `prompt=The king: a` holds a colon, not a mapping.
    A dataclass with a list `overrides` gets the words there that are not its own: those of a run.
    The list called `paths` gets those that are no key=value, or the path of something that exists.
    """
    types = {f.name: f.type for f in dataclasses.fields(cls)}
    are_paths = {f.name for f in dataclasses.fields(cls) if "path" in f.metadata}
    values: dict[str, Any] = {}
    texts: dict[str, str] = {}
    rest = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in types or key == "overrides":
            _check_other(cls, word, paths)
            rest.append(word)
        elif types[key] in (str, str | None):
            is_path = key in are_paths or os.path.lexists(text)  # whose bytes are its name
            texts[key] = text if is_path else as_utf8(text)
        else:
            values[key] = names(text) if types[key] == list[str] else text
    if rest:
        values[paths or "overrides"] = rest
    return cls(**{**typed(cls, values, ""), **texts})


def _check_other(cls: type[Settings], word: str, paths: str) -> None:
    """ConfigError for a word that is no setting of `cls`, and nothing else that it takes."""
    known = [f.name for f in dataclasses.fields(cls) if f.name != "overrides"]
    key, equals, _ = word.partition("=")
    is_path = bool(paths) and (not equals or os.path.lexists(files.expanded(word)))
    is_of_run = "overrides" in {f.name for f in dataclasses.fields(cls)}  # as is --config-dir
    if word.startswith("-") and not (is_of_run or os.path.lexists(word)):
        raise ConfigError(f"{word} is no option: settings are key=value, without dashes")
    if is_path or is_of_run:
        return
    if not equals:
        raise ConfigError(
            f"{word} is not key=value (known: {', '.join(known)}); quote a word that holds a blank"
        )
    raise ConfigError(unknown(cls, {key: word}, "")[0])


def pair(text: str, is_one: Callable[[str], bool]) -> list[str]:
    """The names in A,B, as `names` finds them, two of them where the text can be read so."""
    found = names(text, is_one)
    if len(found) != 2:
        parts = _without_brackets(text, is_one).split(",")
        for i in range(1, len(parts)):
            both = [",".join(parts[:i]), ",".join(parts[i:])]
            if all(map(is_one, both)):
                return both
    return found


def names(text: str, is_one: Callable[[str], bool] | None = None) -> list[str]:
    """The names in A,B,...: where `is_one` says that there is such a one, it may hold commas.

    Without `is_one` these are files or folders. [A,B] means the same. A blank beside a comma
    counts only where there is such a name.
    """
    is_one = is_one or (lambda name: os.path.lexists(files.expanded(name)))
    parts = _without_brackets(text, is_one).split(",")
    # found[i]: the names in parts[i:], each of which is one; the shortest are tried first.
    found: dict[int, list[str]] = {len(parts): []}
    for i in reversed(range(len(parts))):
        for end in range(i + 1, len(parts) + 1):
            typed_name = ",".join(parts[i:end])
            name = typed_name if is_one(typed_name) else typed_name.strip()
            if end in found and is_one(name):
                found[i] = [name, *found[end]]
                break
    return found.get(0) or [part.strip() for part in parts if part.strip()]


def _without_brackets(text: str, is_one: Callable[[str], bool]) -> str:
    is_list = text[:1] == "[" and text[-1:] == "]" and not is_one(text)
    return text[1:-1] if is_list else text


def change(settings: S, word: str) -> S:
    """The same settings with one of them changed."""
    key = word.partition("=")[0]
    return dataclasses.replace(settings, **{key: getattr(parse(type(settings), [word]), key)})


# --------------------------------------------------------------------------------- the errors


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:  # which need not be loaded to ask
        return isinstance(error, MemoryError)
    from lm.system import devices

    return devices.is_out_of_memory(error)


class errors_in_one_line:
    """Prints what the user can mend in one line; our own mistakes keep their traceback.

    The exit codes are in system/errors.py. HYDRA_FULL_ERROR=1 shows the traceback of every error.
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
        if isinstance(error, BrokenPipeError) and streams.reader_is_gone():
            streams.let_go_of_output()
            sys.exit(0)
        is_known = isinstance(error, (ValueError, OSError)) or hasattr(error, "exit_code")
        if not (is_known or _is_out_of_memory(error)):
            return
        text, code = _text_and_code(error)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        rank = launch_rank()
        if rank == 0:
            print_error(text)
        elif not isinstance(error, ConfigError):  # rank 0 has printed that one too
            print_error(f"rank {rank}: {text}")
        sys.exit(code)


def print_error(text: str) -> None:
    """Print one line that begins with `error: `."""
    streams.print_line(f"error: {' '.join(text.split())}", to_stderr=True)


def _text_and_code(error: BaseException) -> tuple[str, int]:
    """What is said of an error, and the exit code."""
    code = getattr(error, "exit_code", None)
    if isinstance(error, OSError) and code is None:
        return _of_system(error)
    if isinstance(error, ValueError) or code is not None:
        return str(error), 2 if code is None else code
    return f"out of memory: {str(error) or NO_ROOM}", 1


def _of_system(error: OSError) -> tuple[str, int]:
    if error.errno in DENIED and error.filename:
        place = Path(str(error.filename))
        place = place.absolute().parent if files.is_temporary(place) else place
        text = f"{place}: {error.strerror}; choose a place that you may read and write"
        return text, 4 if error.errno in STORAGE else 2
    if error.errno not in STORAGE:
        return str(error), 2
    if error.errno == errno.EIO:  # which room does not mend
        return f"{error}: the disk may be failing; choose a place on another", 4
    cache = files.cache_dir().absolute()
    if error.filename:
        text = str(error)
        is_of_cache = Path(str(error.filename)).absolute().is_relative_to(cache)
    else:
        full = [folder for folder in (cache, Path.cwd(), Path(gettempdir())) if _is_full(folder)]
        text = ": ".join([str(error), *(f"no room in {folder}" for folder in full[:1])])
        is_of_cache = full[:1] == [cache]
    other = ", or set LM_CACHE_DIR to a folder on another disk" if is_of_cache else ""
    return f"{text}: make room{other}", 4


def _is_full(folder: Path) -> bool:
    """Whether the file system on which a folder lies, or would, has no megabyte left."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        return shutil.disk_usage(existing).free < 1 << 20
    except OSError:  # one that does not tell
        return False


def _kind_and_place(error: Exception) -> str:
    """The class of an error, and the line of the code that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    at = f" ({place[0].filename}, line {place[0].lineno})" if place else ""
    return f"{type(error).__name__}{at}"
