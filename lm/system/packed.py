"""Open a plain file whose content may be packed, and read what it unpacks to, up to a limit.

    with packed.open_unpacked(Path("texts.jsonl.gz")) as file: ...

Another packing, such as .zst, is one more entry of UNPACKERS.
"""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from lm.system import foreign

# Content may be MAX_RATIO times as large as its file, or MAX_SMALL bytes if that is more. Text
# packs 3 to 10 times smaller; past 100 times it is a bomb, or has nothing to learn from.
MAX_RATIO = 100
MAX_SMALL = 1 << 26
# suffix: what unpacks an open file, the errors of one that is damaged, the command to unpack it
Unpacker = tuple[Callable[[IO[bytes]], io.BufferedIOBase], tuple[type[Exception], ...], str]
UNPACKERS: dict[str, Unpacker] = {
    ".gz": (
        lambda file: gzip.GzipFile(fileobj=file),
        (gzip.BadGzipFile, EOFError, zlib.error),
        "gunzip",
    ),
}


def suffix_of(path: Path) -> str:
    """The suffix that says how the file is packed, "" if it does not say so."""
    suffix = path.suffix.lower()
    return suffix if suffix in UNPACKERS else ""


def open_unpacked(path: Path) -> io.BufferedReader:
    """The content of a plain file, unpacked if its suffix says that it is packed."""
    file = foreign.open_plain(path, links=True)
    suffix = suffix_of(path)
    if not suffix:
        return file
    return io.BufferedReader(_Unpacked(path, file, UNPACKERS[suffix]), buffer_size=1 << 20)


class _Unpacked(io.RawIOBase):
    """The content of a packed file, read as it is needed; ValueError past a limit of bytes."""

    def __init__(self, path: Path, file: io.BufferedReader, unpacker: Unpacker):
        unpack, self.damages, self.command = unpacker
        self.path = path
        self.limit = max(MAX_SMALL, MAX_RATIO * path.stat().st_size)
        self.packed = file
        self.content = unpack(file)
        self.n_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            data = self.content.read(len(buffer))
        except self.damages as error:
            suffix = suffix_of(self.path)
            raise ValueError(f"{self.path} is not an intact {suffix} file: {error}") from None
        self.n_read += len(data)
        if self.n_read > self.limit:
            raise ValueError(
                f"{self.path} unpacks to more than {self.limit:,} bytes, over {MAX_RATIO} times "
                f"its size: if you trust it, unpack it with {self.command} and give the result"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.content.close()
        self.packed.close()
        super().close()
