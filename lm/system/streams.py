"""Files or standard streams for a command: "-" means standard input or output.

with streams.open_text("-") as source, streams.open_output("ids.txt") as sink: ...
"""

import io
import os
import secrets
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from lm.system import durable, foreign, packed
from lm.system.errors import ConfigError
from lm.system.text import printable, printable_line


def replace_what_has_no_code() -> None:
    """Let standard input and output replace what their encoding does not have, such as \u00e9 in
    ASCII; standard error does so from the start."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(io.UnsupportedOperation):  # something was read from it already
                stream.reconfigure(errors="replace")


def print_line(text: str = "", *, to_stderr: bool = False) -> None:
    """Print one line for a person. A stranger's name or text in it can neither drive the terminal
    nor begin a line of its own.
    """
    print(printable_line(text), file=sys.stderr if to_stderr else sys.stdout)


def print_text(text: str, end: str = "\n") -> None:
    """Print a text of several lines, or a piece of one, at once; it cannot drive the terminal."""
    print(printable(text), end=end, flush=True)


@contextmanager
def open_text(path: str) -> Iterator[IO[str]]:
    """The file (a .gz unpacked), or standard input for "-", as UTF-8, its line ends as they are."""
    try:
        if path == "-":
            if isinstance(sys.stdin, io.TextIOWrapper):
                sys.stdin.reconfigure(encoding="utf-8", newline="")
            yield sys.stdin
        else:
            with open_bytes(path) as file:
                yield io.TextIOWrapper(file, encoding="utf-8", newline="")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"path={path} is not UTF-8 (byte 0x{byte:02x}): convert it") from None


@contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """The file, unpacked if it is a .gz, or standard input for "-"."""
    if path == "-":
        yield sys.stdin.buffer
    elif packed.suffix_of(Path(path)):
        with packed.open_unpacked(Path(path)) as file:
            yield file
    elif os.path.isfile(path):
        with foreign.open_plain(Path(path), links=True) as file:
            yield file
    else:
        with open(path, "rb") as file:  # a pipe or a device
            yield file


def check_output(path: str, *inputs: str, as_stream: bool = False) -> None:
    """ConfigError, before the work begins, for an out=PATH that no file can be written to,
    that is one of the `inputs`, or that has the name of a packed file.

    Only a stream can be written to standard output, "-", or into a device or a pipe; a file that is
    replaced would delete it.
    """
    if path == "-":
        if as_stream:
            return
        raise ConfigError("out=- is standard output: give the name of a file (./- is one, too)")
    if os.path.isdir(path):
        raise ConfigError(f"out={path} is a folder: give the name of a file")
    if suffix := packed.suffix_of(Path(path)):  # a reader of it would take it for damaged
        raise ConfigError(f"out={path}: nothing is written packed, so leave out the {suffix}")
    for name in inputs:
        if os.path.isfile(path) and os.path.isfile(name) and os.path.samefile(path, name):
            raise ConfigError(f"out={path} is read too, as {name}: choose another out=")
    exists = os.path.lexists(path)
    if exists and not as_stream and not os.path.isfile(path) and not os.path.islink(path):
        raise ConfigError(f"out={path} is no plain file: choose another out=")
    check_place(path)


def check_place(path: str) -> None:
    """ConfigError for an out=PATH, of a file or folder, where none can be made or written to."""
    folder = next(folder for folder in Path(path).absolute().parents if os.path.lexists(folder))
    if not folder.is_dir():
        raise ConfigError(f"out={path}: {folder} is no folder: choose another out=")
    what = path if os.path.lexists(path) else folder
    if not os.access(what, os.W_OK):
        raise ConfigError(f"out={path}: {what} cannot be written to: choose another out=")


def check_new(path: str, overwrite: bool) -> None:
    """ConfigError for an out=PATH that would replace a file, unless `overwrite` allows it.

    For output of which nothing tells whether lm wrote it. An empty file has nothing to lose.
    """
    if path != "-" and not overwrite and os.path.isfile(path) and os.path.getsize(path):
        raise ConfigError(
            f"out={path} is there, and may be somebody's own: choose another out=, or give "
            "overwrite=true"
        )


def reader_is_gone() -> bool:
    """Whether whoever read our standard output, such as head, has had enough and closed it."""
    if not hasattr(select, "poll"):  # of Windows
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in output.poll(0))


def let_go_of_output() -> None:
    """What is printed from now on goes nowhere, instead of failing when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def open_output(path: str) -> Iterator[IO[bytes]]:
    """The file, which appears whole or not at all, or standard output for "-"."""
    if path == "-":
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            let_go_of_output()
    elif Path(path).exists() and not Path(path).is_file():  # a device or a named pipe
        with _named(path), open(path, "wb") as file:
            yield file
    else:
        path = os.path.realpath(path)  # a link stays one, such as /dev/stdout
        durable.make_folder(Path(path).parent)
        partial = f"{path}.{secrets.token_hex(4)}.part"
        try:
            with _named(path, partial), open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            durable.rename(Path(partial), Path(path))
        finally:
            Path(partial).unlink(missing_ok=True)


@contextmanager
def _named(path: str, partial: str = "") -> Iterator[None]:
    """Errors of the system inside name the output instead of nothing or its temporary file."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, partial):
            error.filename = path
        raise
