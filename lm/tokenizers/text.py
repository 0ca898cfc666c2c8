"""Text at the border: to UTF-8 with errors that point, to the terminal without control characters.

encode_utf8("a")   # b"a";   encode_utf8("\\ud800") raises TextError
"""

import os
import tempfile
from pathlib import Path


class TextError(ValueError):
    """A character that has no ids: `what` with {offset}, which counts from the start of
    texts[index].
    """

    def __init__(self, what: str, index: int, offset: int):
        super().__init__(what.replace("{offset}", str(offset)))
        self.what, self.index, self.offset = what, index, offset


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file by one that is complete and on disk, through a unique temporary name beside
    it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def encode_utf8(text: str, what: str = "the text") -> bytes:
    """UTF-8 bytes. Raises ValueError naming the first lone surrogate, which UTF-8 cannot hold."""
    return encode_texts([text], what)[0]


def encode_texts(texts: list[str], what: str = "the text") -> list[bytes]:
    """`encode_utf8` for each text."""
    raw = []
    for index, text in enumerate(texts):
        try:
            raw.append(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            message = (
                f"{what} holds the lone surrogate U+{ord(text[error.start]):04X} at offset "
                '{offset}: pass errors="replace", or clean it where it is read'
            )
            raise TextError(message, index, error.start) from None
    return raw


def printable(text: str) -> str:
    """The text with everything escaped that a terminal could act on or that cannot be seen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def replace_surrogates(text: str, errors: str) -> str:
    if errors != "replace":
        raise ValueError(f"errors={errors} is not one of strict, replace")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
