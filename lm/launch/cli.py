"""The command line of the verbs that compose nothing: key=value words into one dataclass.

cli.main(config.SampleConfig, command)
"""

import contextlib
import dataclasses
import errno
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from omegaconf import OmegaConf

from lm.settings import Settings, typed, unknown
from lm.system import processes
from lm.system.errors import ConfigError
from lm.system.processes import launch_rank

STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
S = TypeVar("S", bound=Settings)


def main(cls: type[S], command: Callable[[S], Any]) -> None:
    """Run `command` with the settings of the command line; an error is one line and exit code 2."""
    prepare_streams()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(usage(cls))
        return
    with interruptible(), errors_in_one_line():
        command(parse(cls, without_imports(words)))


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt inside; around it ends the process: see lm/__init__.py."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def prepare_streams() -> None:
    """What cannot be told, as the terminal is gone or the disk full, costs that line and no run."""
    warnings.showwarning = plain_warning
    logging.raiseExceptions = False  # or each such line would be a page of tracebacks
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: a file of the run could get its number
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def without_imports(words: list[str]) -> list[str]:
    """The words but `import=MODULE`, whose modules are imported: models from outside the package.

    Only the command line can name them, since to import is to run their code; no file ever does.
    """
    kept = []
    os.environ.pop(processes.IMPORTS, None)
    for word in words:
        key, _, name = word.partition("=")
        if key != "import":
            kept.append(word)
            continue
        here = os.getcwd()  # where my_models/ lies, for installed commands too
        sys.path.insert(0, here)
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name + ".").startswith(error.name + "."):
                raise  # the module is there and lacks something itself
            raise ConfigError(
                f"import={name}: there is no such module under {here} or installed"
            ) from None
        finally:
            sys.path.pop(0)
        if here not in sys.path:  # the processes of a sweep or of several GPUs import it again
            sys.path.append(here)
            os.environ["PYTHONPATH"] = os.pathsep.join(
                filter(None, [os.environ.get("PYTHONPATH"), here])
            )
        os.environ[processes.IMPORTS] = f"{os.environ.get(processes.IMPORTS, '')} {name}".strip()
    return kept


def parse(cls: type[S], words: list[str]) -> S:
    """The dataclass `cls` with the fields that the words set; raises ConfigError.

    A str field takes its text as it stands: `prompt=The king: a` holds a colon, not a mapping.
    A dataclass with a list `overrides` gets the words there that are not its own: those of a run.
    """
    types = {f.name: f.type for f in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if "overrides" in types and key not in types:
            values.setdefault("overrides", []).append(word)
            continue
        if not equals:
            raise ConfigError(f"{word} is not key=value (known: {', '.join(types)})")
        if problems := unknown(cls, [key], ""):
            raise ConfigError(problems[0])
        values[key] = text if types[key] in (str, str | None) else _plain(text)
    return cls(**typed(cls, values, ""))


def change(settings: S, word: str) -> S:
    """The same settings with one of them changed."""
    key = word.partition("=")[0]
    return dataclasses.replace(settings, **{key: getattr(parse(type(settings), [word]), key)})


def usage(cls: type[Settings]) -> str:
    """The command's purpose, then each setting and its default."""
    names = [f.name for f in dataclasses.fields(cls) if f.name != "overrides"]
    rows = [f"  {name}={getattr(cls(), name)}" for name in names]
    return "\n".join([(cls.__doc__ or "").strip(), "", "settings, as key=value:", *rows])


def plain_warning(message: Warning | str, *_: Any) -> None:
    """A warning as one line, without the place in our code that gave it."""
    logging.getLogger("lm").warning(f"note: {message}")


class errors_in_one_line:
    """What the user can mend is told in one line; our own mistakes keep their traceback.

    Exit code 2, or the error's own: 3 non-finite numbers, 4 storage, 5 no intact checkpoint.
    HYDRA_FULL_ERROR=1 shows the traceback of every error.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: Any, _: Any) -> None:
        if kind is None or os.environ.get("HYDRA_FULL_ERROR"):
            return
        if issubclass(kind, KeyboardInterrupt):
            sys.exit(130)
        full = isinstance(error, OSError) and error.errno in STORAGE
        code = getattr(error, "exit_code", 4 if full else 2)
        if issubclass(kind, (ValueError, OSError)) or hasattr(error, "exit_code"):
            sys.stdout.flush()
            where = f"rank {launch_rank()}: " * (launch_rank() > 0)
            text = " ".join(str(error).split())
            if full and not error.filename:
                text += ": make room, or set LM_CACHE_DIR to a folder on another disk"
            if not where or not isinstance(error, ConfigError):  # rank 0 has told that one too
                print(f"error: {where}{text}", file=sys.stderr)
            sys.exit(code)


def _plain(text: str) -> Any:
    return OmegaConf.create(f"value: {text}").value if text else None
