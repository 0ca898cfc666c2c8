"""Ids to bytes: a lookup in plain Python for a few, numpy for many.

Decoder({0: b"a", 1: b"bc"}).decode([1, 0])   # b"bca"
"""

import functools
from array import array
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lm.tokenizers.table import gather

_BLOCK_LEN = 1 << 15  # ids decoded at a time: their arrays stay in the cache
_FEW = 200  # ids below which plain Python decodes faster than numpy


class Decoder:
    """`tokens` holds the bytes of each id, those of special tokens included; ids may leave gaps."""

    def __init__(self, tokens: Mapping[int, bytes]):
        self.tokens = dict(tokens)
        self.vocab_size = max(self.tokens, default=-1) + 1
        self.has_gaps = len(self.tokens) < self.vocab_size

    def decode(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids, joined. Raises ValueError for an id that stands for nothing."""
        if not isinstance(ids, (list, np.ndarray, tuple)):
            ids = list(ids)
        try:
            if len(ids) < _FEW:
                return b"".join(map(self.tokens.__getitem__, ids))
            numbers = self._as_array(ids)
            starts = range(0, len(numbers), _BLOCK_LEN)
            return b"".join([self._decode_block(numbers[a : a + _BLOCK_LEN]) for a in starts])
        except (KeyError, TypeError, OverflowError, IndexError):
            raise self.unknown_id(ids) from None

    def _as_array(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        if not isinstance(ids, np.ndarray):
            # Far faster than np.array, and it refuses what is no integer of 0..2^32 - 1.
            return np.frombuffer(array("I", ids), np.uintc)
        if ids.dtype.kind not in "ui" or ids.min() < 0 or ids.max() >= self.vocab_size:
            raise IndexError("an id out of range")
        return ids

    def _decode_block(self, ids: np.ndarray) -> bytes:
        pool, start, length = self._pool
        ids = ids.astype(np.intp)
        sizes = length.take(ids)
        if self.has_gaps and not sizes.all():
            raise IndexError("an id that stands for nothing")
        return gather(pool, start.take(ids), sizes).tobytes()

    @functools.cached_property
    def _pool(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bytes of all ids end to end, and start and length of each id's in them."""
        tokens = [self.tokens.get(i, b"") for i in range(self.vocab_size)]
        length = np.array([len(token) for token in tokens], np.int64)
        start = np.cumsum(length) - length
        return np.frombuffer(b"".join(tokens), np.uint8), start, length

    def unknown_id(self, ids: Sequence[int] | np.ndarray) -> ValueError:
        """The error that names the first of `ids` that stands for nothing."""
        unknown = None
        for i in ids.tolist() if isinstance(ids, np.ndarray) else ids:
            if not isinstance(i, int | np.integer) or i not in self.tokens:
                unknown = i
                break
        known = f"0..{self.vocab_size - 1}"
        if self.has_gaps:
            known += " with gaps"
        return ValueError(f"{unknown!r:.60} is not an id: they are the integers {known}")
