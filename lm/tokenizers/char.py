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
        special_ids = {special: len(tokens) + k for k, special in enumerate(specials)}
        super().__init__(tokens, special_ids)
        points = np.array([ord(c) for c in self.chars], np.int64)
        n_entry = int(points.max(initial=-1)) + 2  # the last stands for all characters above
        self._ids = np.full(n_entry, -1, np.int32)
        self._ids[points] = np.arange(len(points))

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        counts = np.array([len(text) for text in texts], np.int64)
        raw = "".join(texts).encode("utf-32-le", "surrogatepass")
        points = np.frombuffer(raw, np.uint32)
        ids = self._ids[np.minimum(points, len(self._ids) - 1)]
        if len(ids) and ids.min() < 0:
            raise self._unknown(points, counts, int(np.flatnonzero(ids < 0)[0]))
        return ids.astype(self.dtype), counts

    def _unknown(self, points: np.ndarray, counts: np.ndarray, at: int) -> TextError:
        """The error for the code point points[at] of texts with `counts` characters each."""
        char = chr(points[at])
        text = int(np.searchsorted(np.cumsum(counts), at, side="right"))
        offset = at - int(counts[:text].sum())
        message = (
            f"{char!r} (U+{ord(char):04X}) at offset {{offset}} is none of the {len(self.chars)} "
            "characters this tokenizer knows: use tokenizer=byte or tokenizer=bpe"
        )
        return TextError(message, text, offset)

    def content(self) -> dict[str, object]:
        return {"chars": self.chars}
