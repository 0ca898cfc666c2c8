"""Text at the border: in blocks, to UTF-8 with errors that point, to terminals without controls.

encode_utf8("a")   # b"a";   encode_utf8("\\ud800") raises TextError
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from lm.system import durable

BLOCK_LEN = 1 << 17  # characters encoded at a time: the arrays of a block stay in the cache
MAX_STRETCH = 1 << 26  # characters without a place to cut: encoding one takes 60 bytes of memory

Mark = tuple[int, bool]  # offset of a text in its document, and whether the document ends with it
Batch = tuple[list[str], list[Mark]]


class TextError(ValueError):
    """Text that gets no ids. The message is `what`, in which {offset} stands for an offset in
    texts[index] of a batch.
    """

    def __init__(self, what: str, index: int, offset: int):
        super().__init__(what.replace("{offset}", str(offset)))
        self.what = what
        self.index = index
        self.offset = offset

    def shifted(self, start: int) -> "TextError":
        """This error for the text in which the one it counts from begins at offset `start`."""
        return TextError(self.what, 0, self.offset + start)


@contextlib.contextmanager
def located(marks: list[Mark]) -> Iterator[None]:
    """Have a TextError about parts of documents give its offset in the document."""
    try:
        yield
    except TextError as error:
        offset, _ = marks[error.index]
        raise error.shifted(offset) from None


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file by one that is complete and on disk, through a unique temporary name beside
    it.
    """
    durable.make_folder(path.parent)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        durable.rename(Path(temporary), path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def encode_utf8(text: str, what: str = "the text") -> bytes:
    """UTF-8 bytes. Raises ValueError naming the first lone surrogate, which UTF-8 cannot hold."""
    return encode_texts([text], what)[0]


def encode_texts(texts: list[str], what: str = "the text") -> list[bytes]:
    """UTF-8 bytes of each text. Raises TextError at the first lone surrogate; `what` names the
    text.
    """
    raw = []
    for index, text in enumerate(texts):
        try:
            raw.append(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            message = (
                f"{what} holds the lone surrogate U+{ord(text[error.start]):04X} at offset "
                "{offset}, which UTF-8 cannot hold: repair the text, or, in Python, "
                'encode(text, errors="replace")'
            )
            raise TextError(message, index, error.start) from None
    return raw


def printable(text: str) -> str:
    """The text with everything escaped that a terminal could act on or that cannot be seen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def replace_surrogates(text: str, errors: str) -> str:
    """The text with U+FFFD for each lone surrogate; `errors` must be "replace"."""
    if errors != "replace":
        raise ValueError(f"errors={errors} is not one of strict, replace")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@functools.cache
def keep_pages() -> None:
    """Let glibc keep the memory of one block's arrays for the next: call it before the first block.

    glibc gives large pieces of memory back to the system and has their pages zeroed anew each time,
    until a piece of that size was freed once.
    """
    np.empty(1 << 24, np.uint8)


def blocks(documents: Iterable[str], safe_cut: Callable[[str, int], int]) -> Iterator[Batch]:
    """Texts of about BLOCK_LEN characters together; long documents come in parts.

    `safe_cut(text, at)` is the first place at or after `at` where a document may be cut.
    """
    texts: list[str] = []
    marks: list[Mark] = []
    n_char = 0
    for document in documents:
        for offset, text, ends in _parts(document, safe_cut):
            texts.append(text)
            marks.append((offset, ends))
            n_char += len(text) + 1
            if n_char >= BLOCK_LEN:
                yield texts, marks
                texts = []
                marks = []
                n_char = 0
    if texts:
        yield texts, marks


def _parts(document: str, safe_cut: Callable[[str, int], int]) -> Iterator[tuple[int, str, bool]]:
    """Offset and text of each part of the document, and whether it is the last."""
    if not isinstance(document, str):
        raise ValueError(
            f"text must be a str, not {type(document).__name__}: decode bytes, or use encode_bytes"
        )
    done = 0
    while len(document) - done > BLOCK_LEN:
        cut = safe_cut(document, done + BLOCK_LEN)
        if cut - done > MAX_STRETCH:
            raise TextError(
                f"{cut - done:,} characters from offset {{offset}} on have no place at which they "
                f"may be cut, and {MAX_STRETCH:,} are allowed: use tokenizer=byte or "
                "tokenizer=char, or part the text by blanks or line ends",
                0,
                done,
            )
        if cut >= len(document):
            break
        yield done, document[done:cut], False
        done = cut
    yield done, document[done:], True
