"""One id for each code point of the training text, in sorted order.

CharTokenizer("abc").encode("cab")   # [2, 0, 1]
"""

from collections.abc import Iterable, Sequence

import numpy as np

from lm.tokenizers.base import EOT, Tokenizer
from lm.tokenizers.text import TextError, encode_utf8


class CharTokenizer(Tokenizer):
    """Knows the characters it is given and no others."""

    name = "char"

    def __init__(self, chars: Iterable[str], specials: Sequence[str] = (EOT,)):
        self.chars = "".join(sorted(set(chars)))
        encode_utf8(self.chars, "the training text")
        tokens = {i: c.encode() for i, c in enumerate(self.chars)}
        super().__init__(tokens, {s: len(tokens) + k for k, s in enumerate(specials)})
        points = np.array([ord(c) for c in self.chars], np.int64)
        self._ids = np.full(
            int(points.max(initial=-1)) + 2, -1, np.int32
        )  # the last entry stands for all above
        self._ids[points] = np.arange(len(points))

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        counts = np.array([len(text) for text in texts], np.int64)
        raw = "".join(texts).encode("utf-32-le", "surrogatepass")
        points = np.frombuffer(raw, np.uint32)
        ids = self._ids[np.minimum(points, len(self._ids) - 1)]
        if len(ids) and ids.min() < 0:
            unknown = int(np.flatnonzero(ids < 0)[0])
            text = int(np.searchsorted(np.cumsum(counts), unknown, side="right"))
            char = chr(points[unknown])
            raise TextError(
                f"{char!r} (U+{ord(char):04X}) at offset {{offset}} is none of the "
                f"{len(self.chars)} characters this tokenizer knows: "
                "use tokenizer=byte or tokenizer=bpe",
                text,
                unknown - int(counts[:text].sum()),
            )
        return ids.astype(self.dtype), counts

    def content(self) -> dict[str, object]:
        return {"chars": self.chars}
