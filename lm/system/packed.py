"""Open a plain file whose content may be packed, and read what it unpacks to, up to a limit.

    with packed.open_unpacked(Path("texts.jsonl.gz")) as file: ...

Another packing is one more entry of UNPACKERS.
"""

import gzip
import io
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from lm.system import foreign
from lm.system.errors import ConfigError

# Content may be MAX_RATIO times as large as its file, or MAX_SMALL bytes if that is more. Text
# packs 3 to 10 times smaller; past 100 times it is a bomb, or has nothing to learn from.
MAX_RATIO = 100
MAX_SMALL = 1 << 26
ZSTD_PIECE = 1 << 13  # packed bytes at a time: they unpack to at most some thousand times as many


def _unpack_zstd(file: IO[bytes]) -> io.BufferedIOBase:
    import zstandard

    return _Zstd(file, zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError)


class Frame(Protocol):
    """What one frame of zstandard is unpacked by."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes) -> bytes: ...


class _Zstd(io.BufferedIOBase):
    """Frames of zstandard one after another; EOFError where the file is damaged or cut short.

    The library's own stream takes a file that ends in the middle for a whole one.
    """

    def __init__(self, file: IO[bytes], new_frame: Callable[[], Frame], error: type[Exception]):
        self.file = file
        self.new_frame = new_frame
        self.error = error
        self.frame = new_frame()
        self.is_open = True  # whether the frame has to go on
        self.ready = b""  # unpacked and not yet read

    def read(self, size: int | None = -1, /) -> bytes:
        parts = []
        n_left = sys.maxsize if size is None or size < 0 else size
        while n_left and (self.ready or self._unpack()):
            part = self.ready[:n_left]
            self.ready = self.ready[n_left:]
            parts.append(part)
            n_left -= len(part)
        return b"".join(parts)

    def _unpack(self) -> bool:
        """Make more content ready; False at the end of the file."""
        while not self.ready:
            data = self.file.read(ZSTD_PIECE)
            if not data:
                if self.is_open:
                    raise EOFError("it ends in the middle")
                return False
            while data:
                if not self.is_open:
                    self.frame = self.new_frame()
                try:
                    self.ready += self.frame.decompress(data)
                except self.error as error:
                    raise EOFError(str(error)) from None
                self.is_open = not self.frame.eof
                data = self.frame.unused_data
        return True


# suffix: what unpacks an open file, the errors of one that is damaged, the command to unpack it
Unpacker = tuple[Callable[[IO[bytes]], io.BufferedIOBase], tuple[type[Exception], ...], str]
UNPACKERS: dict[str, Unpacker] = {
    ".gz": (
        lambda file: gzip.GzipFile(fileobj=file),
        (gzip.BadGzipFile, EOFError, zlib.error),
        "gunzip",
    ),
    ".zst": (_unpack_zstd, (EOFError,), "unzstd"),
}


def suffix_of(path: Path) -> str:
    """The suffix that says how the file is packed, "" if it does not say so."""
    suffix = path.suffix.lower()
    return suffix if suffix in UNPACKERS else ""


def unpacked_limit(path: Path) -> int:
    """Bytes that the content of a packed file may have."""
    return max(MAX_SMALL, MAX_RATIO * path.stat().st_size)


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
        self.limit = unpacked_limit(path)
        self.packed = file
        self.n_read = 0
        try:
            self.content = unpack(file)
        except ImportError as error:
            file.close()
            suffix = suffix_of(path)
            raise ConfigError(
                f"{path}: {suffix} needs {error.name}: pip install {error.name}"
            ) from None

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
