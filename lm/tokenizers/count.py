"""Count the chunks of many documents, in one pass and with the memory of the distinct ones.

count_chunks(["to be or not to be"], Splitter("gpt4"))   # {b"to": 1, b" be": 2, ...}
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lm.tokenizers.split import Splitter, find_chunks
from lm.tokenizers.table import MAX_KEY_BYTES, Table, distinct, pack, words
from lm.tokenizers.text import blocks, encode_texts, keep_pages

LONGEST = 1 << 20  # characters behind which a text without a place to cut is cut for counting
MAX_LONG_BYTES = 1 << 26  # of different chunks that are too long for the table


def count_chunks(
    documents: Iterable[str], splitter: Splitter, specials: Sequence[str] = ()
) -> dict[bytes, int]:
    """How often each chunk occurs. No chunk spans two documents, or contains a special token: those
    are not counted. Chunks of more than LONGEST characters are counted in parts, and no more than
    MAX_LONG_BYTES of different long ones: memory does not grow with a text of a single word.
    """
    if splitter.starts is None:
        return _count_plainly(documents, splitter, specials)
    keep_pages()
    short = _ShortCounts()
    long: Counter[bytes] = Counter()
    n_bytes = 0  # of all different long chunks
    has_warned = False

    def cut(text: str, at: int) -> int:
        return splitter.safe_cut(text, at, until=at + LONGEST)

    for texts, _ in blocks(_without_specials(documents, specials), cut):
        raw = encode_texts(texts, "the training text")
        data, start, length, _ = find_chunks(splitter.starts, texts, raw)
        is_long = length > MAX_KEY_BYTES
        spans = zip(start[is_long].tolist(), length[is_long].tolist(), strict=True)
        for chunk in (data[a : a + n] for a, n in spans):
            if chunk in long or n_bytes + len(chunk) <= MAX_LONG_BYTES:
                n_bytes += 0 if chunk in long else len(chunk)
                long[chunk] += 1
            elif not has_warned:
                has_warned = True
                warnings.warn(
                    f"merges are learned from the first {MAX_LONG_BYTES >> 20} MB of long words, "
                    "and the short ones: the text has more, of which learning would take 36 times "
                    "the memory",
                    stacklevel=2,
                )
        short.add(data, start[~is_long], length[~is_long])
    return short.counts() | dict(long)


class _ShortCounts:
    """Counts of chunks that fit a packed key: a table numbers the keys, an array counts them."""

    def __init__(self):
        self.table = Table(16)
        self.n = np.zeros(1 << 16, np.int64)  # by number; longer than there are keys
        self.keys: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, data: bytes, start: np.ndarray, length: np.ndarray) -> None:
        lo, hi = pack(words(data), start, length)
        number = self.table.find(lo, hi)
        missing = np.flatnonzero(number < 0)
        if len(missing):
            first, which = distinct(lo[missing], hi[missing])
            number[missing] = self.table.n_entry + which
            first = missing[first]
            self.table.insert(lo[first], hi[first], number[first])
            self.keys.append((lo[first], hi[first]))
            if self.table.n_entry > len(self.n):
                self.n = np.concatenate((self.n, np.zeros(2 * self.table.n_entry, np.int64)))
        self.n += np.bincount(number, minlength=len(self.n))

    def counts(self) -> dict[bytes, int]:
        if not self.keys:
            return {}
        lo, hi = (np.concatenate(column) for column in zip(*self.keys, strict=True))
        raw = np.stack((lo, hi), axis=1).astype("<u8").tobytes()
        sizes = (hi >> np.uint64(56)).astype(np.int64).tolist()
        chunks = [raw[16 * k : 16 * k + size] for k, size in enumerate(sizes)]
        return dict(zip(chunks, self.n[: len(chunks)].tolist(), strict=True))


def _count_plainly(
    documents: Iterable[str], splitter: Splitter, specials: Sequence[str]
) -> dict[bytes, int]:
    """`count_chunks` with the chunks of `regex`, for a pattern of which nothing is known."""
    counts: Counter[str] = Counter()
    for text in _without_specials(documents, specials):
        counts.update(splitter.chunks(text))
    raw = encode_texts(list(counts), "a chunk of the training text")
    return dict(zip(raw, counts.values(), strict=True))


def _without_specials(documents: Iterable[str], specials: Sequence[str]) -> Iterator[str]:
    """The documents, cut where a special token stands."""
    longest_first = sorted(specials, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    for document in documents:
        if any(special in document for special in specials):
            yield from pattern.split(document)
        else:
            yield document
