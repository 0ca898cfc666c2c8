"""Two well-known texts: tiny Shakespeare (one text) and names (32,033 first names, one a line).

LM_DATA_DIR=/data python -m lm.train corpus=shakespeare    # /data/shakespeare.txt, no network
python -m lm.train corpus=names                            # fetched once into outputs/cache
"""

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from lm.corpora.base import Corpus
from lm.system import files, foreign
from lm.system.text import shell_word

TRIES = 4
BACKOFF = 0.5  # seconds before the second try, doubled before each further one
TIMEOUT = 20.0  # seconds a server may be silent
DEADLINE = 120.0  # seconds one try may take: a server that drips never falls silent
RETRY_STATUS = {408, 425, 429, 500, 502, 503, 504}  # HTTP errors that may pass


@dataclass(frozen=True)
class Pinned:
    """A file whose sha256 is known, so that nothing from the network need be trusted."""

    name: str
    url: str
    size: int  # bytes
    sha256: str


SHAKESPEARE = Pinned(
    name="shakespeare.txt",
    url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    size=1_115_394,
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
NAMES = Pinned(
    name="names.txt",
    url="https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
    size=228_145,
    sha256="0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
)


class Downloaded(Corpus):
    """A pinned file, from LM_DATA_DIR or the network."""

    file: Pinned

    def source(self) -> dict[str, object]:
        return {"name": self.cfg.name, "sha256": self.file.sha256}

    def text(self) -> str:
        return foreign.read_text(find(self.file), links=True)


class Shakespeare(Downloaded):
    """One document of 1,115,394 characters; the split by position gives 1,003,854 / 111,540."""

    file = SHAKESPEARE

    def documents(self) -> Iterator[str]:
        yield self.text()


class Names(Downloaded):
    """One document a name, in the order of the file, repetitions kept."""

    file = NAMES

    def documents(self) -> Iterator[str]:
        yield from self.text().split()


def find(file: Pinned, folder: Path | None = None) -> Path:
    """The path of `file`: in LM_DATA_DIR, else in `folder`, fetched into it if it is not there.

    `folder` is outputs/cache/downloads unless given. Raises ValueError if LM_DATA_DIR holds, or
    the server sends, a different file, and FileNotFoundError if it cannot be fetched.
    """
    data_dir = files.expanded(os.environ.get("LM_DATA_DIR", ""))
    if data_dir:
        path = Path(data_dir, file.name)
        if path.is_file():
            _check_local(path, file)
            return path
    if folder is None:
        folder = files.cache_dir() / "downloads"
    path = folder / file.name
    # Nothing is trusted because it exists: a damaged file is fetched again.
    if not path.is_file() or files.sha256(path) != file.sha256:
        files.make_folder(folder)
        files.atomic_write(path, fetch(file))
    return path


def _check_local(path: Path, file: Pinned) -> None:
    sha256 = files.sha256(path)
    if sha256 != file.sha256:
        word = shell_word(f"corpus.path={path}")
        raise ValueError(
            f"{path} in LM_DATA_DIR has the sha256 {sha256}, but {file.sha256} was expected:"
            f" replace it, or read it as it is with corpus=files {word}"
        )


def fetch(file: Pinned) -> bytes:
    """The content of `file` from the network, checked.

    After a broken connection the next try goes on where it ended, if the server can do that.
    Raises ValueError if the server sends a different file, FileNotFoundError if it sends none.
    """
    body = bytearray()
    for attempt in range(1, TRIES + 1):
        try:
            _receive(file, body)
            return _check(file, bytes(body))
        except (OSError, HTTPException) as error:  # unreachable, silent, cut off, or refusing
            problem = str(error) or type(error).__name__
            if isinstance(error, HTTPError) and error.code not in RETRY_STATUS:
                break
            if attempt < TRIES:
                time.sleep(BACKOFF * 2 ** (attempt - 1))
    raise FileNotFoundError(
        f"{file.url}: no success in {attempt} tries, {problem}; {_way_out(file)}"
    )


def _receive(file: Pinned, body: bytearray) -> None:
    """Add what the server sends to `body`, up to one byte more than `file` has."""
    start = time.monotonic()
    headers = {"User-Agent": "lm"}
    if body:
        headers["Range"] = f"bytes={len(body)}-"
    with urlopen(Request(file.url, headers=headers), timeout=TIMEOUT) as response:
        content_range = response.headers.get("Content-Range") or ""
        if not content_range.startswith(f"bytes {len(body)}-"):
            body.clear()  # the server begins again
        before = len(body)
        while len(body) <= file.size:
            # read1 returns what one receive brings; read would wait for a full buffer
            chunk = response.read1(1 << 16)
            if not chunk:
                break
            body += chunk
            if time.monotonic() - start > DEADLINE:
                raise TimeoutError(f"{len(body):,} bytes in {DEADLINE:.0f} s is too slow")
        content_length = response.headers.get("Content-Length")
    if content_length and content_length.isdecimal() and len(content_length) < 20:
        size = before + int(content_length)
        if len(body) < min(size, file.size + 1):
            raise ConnectionError(f"the connection ended after {len(body):,} of {size:,} bytes")
    if before and hashlib.sha256(body).hexdigest() != file.sha256:
        body.clear()
        raise ConnectionError("the parts of two tries do not fit together")


def _check(file: Pinned, body: bytes) -> bytes:
    """`body`, if it is the content of `file`; else ValueError."""
    sha256 = hashlib.sha256(body).hexdigest()
    if sha256 == file.sha256:
        return body
    if len(body) > file.size:
        got = f"more than the {file.size:,} bytes expected"
    elif body.lstrip()[:1] == b"<":
        got = f"a web page of {len(body):,} bytes"
    else:
        got = f"{len(body):,} bytes with the sha256 {sha256}, expected {file.sha256}"
    raise ValueError(f"{file.url} sent {got}; nothing was kept; {_way_out(file)}")


def _way_out(file: Pinned) -> str:
    data_dir = os.environ.get("LM_DATA_DIR")
    if data_dir:
        return f"LM_DATA_DIR={data_dir} holds no {file.name}: put the file there"
    return f"put the file into a folder as {file.name} and set LM_DATA_DIR to that folder"
