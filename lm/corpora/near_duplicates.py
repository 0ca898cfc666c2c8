"""Documents that repeat an earlier one, found by the runs of eight words that they share.

    repeats = Repeats("drop", 0)
    kept = list(without(documents, repeats))        # only the first of each group, in order
    repeats.n_documents, repeats.n_bytes            # what was left out

    root_of = groups(documents)                     # {7: 2}: document 7 goes with document 2

A document is a near-duplicate if more than SHARE of its runs of words (shingles.py) stand in
earlier documents: a licence at the head of a page is not enough, an edited copy is. One of fewer
than eight words never is, and a long one is judged by its first 16 million characters. Time is
linear in the text. Up to MAX_HASHES different runs, about 50 MB of prose, the answer is exact;
beyond, only the runs whose hash is a multiple of 2, 4, 8, ... count, so that memory stays below
300 MB (FracMinHash: Irber et al. 2022, doi 10.1101/2022.01.11.475838).
"""

from collections.abc import Iterable, Iterator

import numpy as np

from lm.corpora.shingles import shingles
from lm.system.schemas import Repeats

RULES = 1  # raise it when the code here or in shingles.py comes to find others
SHARE = 0.3
MAX_HASHES = 1 << 23
BLOCK_LEN = 1 << 17  # characters that are hashed at a time
BLOCK_DOCUMENTS = 1 << 10
BLOCKS = 16  # are looked up at once while the table has room for all of their hashes
MAX_CHARS = 1 << 24  # of a document that are looked at


def without(
    documents: Iterable[str], repeats: Repeats, seen: "Seen | None" = None
) -> Iterator[str]:
    """The documents that repeat none of those before them that were kept; `repeats` counts the
    others, which are left out. `seen` holds those of other texts, and is told of these.
    """
    if seen is None:
        seen = Seen()
    for blocks in _batches(documents, seen):
        block = _Block(blocks, seen)
        for i, text in enumerate(block.texts):
            if block.is_repeat(i):
                repeats.n_documents += 1
                repeats.n_bytes += len(text.encode("utf-8", "replace"))
            else:
                block.remember(i)
                yield text
        block.add_to_seen()


def remembered(documents: Iterable[str], seen: "Seen") -> Iterator[str]:
    """All documents; `seen` is told of them."""
    for blocks in _batches(documents, seen):
        block = _Block(blocks, seen)
        for i in range(len(block.texts)):
            block.remember(i)
        block.add_to_seen()
        yield from block.texts


def groups(documents: Iterable[str], max_hashes: int = MAX_HASHES) -> dict[int, int]:
    """For each document that shares a group with an earlier one, the first of its group.

    Documents count from 0. A near-duplicate is in one group with the fewest earlier documents that
    hold all of its repeated runs but SHARE of its runs.
    """
    root_of: dict[int, int] = {}
    seen = Seen(max_hashes)
    first = 0  # number of the block's first document
    for blocks in _batches(documents, seen):
        block = _Block(blocks, seen, first)
        for i in range(len(block.texts)):
            if block.is_repeat(i):
                for owner in block.owners(i):
                    _join(root_of, owner, first + i)
            block.remember(i)
        block.add_to_seen()
        first += len(block.texts)
    return {document: _root(root_of, document) for document in root_of}


def _root(root_of: dict[int, int], document: int) -> int:
    while document in root_of:
        document = root_of[document]
    return document


def _join(root_of: dict[int, int], a: int, b: int) -> None:
    """Make two groups one; the smaller number is its root."""
    low, high = sorted((_root(root_of, a), _root(root_of, b)))
    if low != high:
        root_of[high] = low


def _blocks(documents: Iterable[str]) -> Iterator[list[str]]:
    """The documents in lists of about BLOCK_LEN characters."""
    texts: list[str] = []
    n_chars = 0
    for text in documents:
        texts.append(text)
        n_chars += len(text)
        if n_chars >= BLOCK_LEN or len(texts) >= BLOCK_DOCUMENTS:
            yield texts
            texts = []
            n_chars = 0
    if texts:
        yield texts


def _batches(documents: Iterable[str], seen: "Seen") -> Iterator[list[list[str]]]:
    """The blocks, up to BLOCKS at a time: looked up in order, more hashes find more of the table
    in the processor's cache. One at a time where the table might be thinned out between them, so
    that what is found does not depend on BLOCKS.
    """
    batch: list[list[str]] = []
    n_chars = 0  # a run of words begins with one of them, so there are no more runs
    for block in _blocks(documents):
        n_block = sum(map(len, block))
        if batch and (len(batch) == BLOCKS or not seen.has_room(n_chars + n_block)):
            yield batch
            batch = []
            n_chars = 0
        batch.append(block)
        n_chars += n_block
    if batch:
        yield batch


class _Block:
    """The runs of words of some documents, and which of them earlier documents have.

    The documents come in blocks, each of which is hashed at once; `first` is the number of the
    first document.
    """

    def __init__(self, blocks: list[list[str]], seen: "Seen", first: int = 0):
        self.texts = [text for block in blocks for text in block]
        parts = [seen.sampled(*_hashed(block)) for block in blocks]
        hashes = np.concatenate([hashes for hashes, _ in parts])
        counts = np.concatenate([counts for _, counts in parts])
        self._seen = seen
        self._first = first
        # Each different hash of the block once, and for every run which of them it is.
        self._hashes, self._which = np.unique(hashes, return_inverse=True)
        self._owner = seen.owners(self._hashes)  # number of the first document, -1: none so far
        self._is_new = np.zeros(len(self._hashes), bool)
        self._starts = np.append(0, np.cumsum(counts)).tolist()

    def _runs(self, i: int) -> np.ndarray:
        return self._which[self._starts[i] : self._starts[i + 1]]

    def is_repeat(self, i: int) -> bool:
        """Whether more than SHARE of the runs of document i stand in remembered ones."""
        owner = self._owner[self._runs(i)]
        return bool(np.count_nonzero(owner >= 0) > SHARE * len(owner))

    def owners(self, i: int) -> list[int]:
        """The remembered documents that hold the runs of document i, most runs first, as many as
        it takes to leave at most SHARE of all its runs."""
        owner = self._owner[self._runs(i)]
        documents, counts = np.unique(owner[owner >= 0], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        left = counts.sum() - np.cumsum(counts[order])
        n_needed = np.count_nonzero(left > SHARE * len(owner)) + 1
        return documents[order[:n_needed]].tolist()

    def remember(self, i: int) -> None:
        """Let later documents count as repeats of document i."""
        runs = self._runs(i)
        new = runs[self._owner[runs] < 0]
        self._owner[new] = self._first + i
        self._is_new[new] = True

    def add_to_seen(self) -> None:
        """Keep what was remembered for the blocks that follow."""
        self._seen.add(self._hashes[self._is_new], self._owner[self._is_new])


def _hashed(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """`shingles` of the first MAX_CHARS characters of each text; long texts go in pieces, so that
    the arrays of bytes stay small. Runs across the border of two pieces are left out.
    """
    longest = max(map(len, texts))
    if longest <= 2 * BLOCK_LEN:
        return shingles(texts)
    parts = []
    counts = []
    for text in texts:
        n_hashes = 0
        for at in range(0, min(len(text), MAX_CHARS), BLOCK_LEN):
            hashes, _ = shingles([text[at : at + BLOCK_LEN]])
            parts.append(hashes)
            n_hashes += len(hashes)
        counts.append(n_hashes)
    return np.concatenate(parts), np.array(counts)


class Seen:
    """Hashes and the number of the first document that has each: a table with open addressing.

    Past `max_hashes`, a power of two, it keeps only multiples of 2, then of 4, 8, ...
    """

    def __init__(self, max_hashes: int = MAX_HASHES):
        self._max_hashes = max_hashes
        self._step = 1  # hashes that are no multiple of it do not count
        self._n = 0
        self._allocate(1 << 12)

    def has_room(self, n: int) -> bool:
        """Whether n more hashes would leave every hash that counts now counting."""
        return self._n + n <= self._max_hashes

    def _allocate(self, size: int) -> None:
        self._keys = np.zeros(size, np.uint64)
        self._values = np.full(size, -1, np.int32)  # -1 marks an empty slot

    def sampled(self, hashes: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The hashes that count, and how many of each document do."""
        if self._step == 1:
            return hashes, counts
        counted = self._counted(hashes)
        before = np.append(0, np.cumsum(counted))
        return hashes[counted], np.diff(before[np.append(0, np.cumsum(counts))])

    def _counted(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes & np.uint64(self._step - 1)) == 0

    def _slots(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes >> np.uint64(64 - (len(self._keys) - 1).bit_length())).astype(np.intp)

    def owners(self, hashes: np.ndarray) -> np.ndarray:
        """The first document of each of n hashes, int32 (n,), -1 where none has it."""
        slots = self._slots(hashes)
        values = self._values[slots]
        last = len(self._keys) - 1
        at = np.flatnonzero((values >= 0) & (self._keys[slots] != hashes))
        while len(at):
            slots[at] = (slots[at] + 1) & last
            values[at] = self._values[slots[at]]
            at = at[(values[at] >= 0) & (self._keys[slots[at]] != hashes[at])]
        return values

    def add(self, hashes: np.ndarray, documents: np.ndarray) -> None:
        """Add different hashes that the table does not have."""
        counted = self._counted(hashes)
        hashes = hashes[counted]
        documents = documents[counted]
        while self._n + len(hashes) > self._max_hashes:
            self._step *= 2
            kept = (self._values >= 0) & self._counted(self._keys)
            self._rebuild(self._keys[kept], self._values[kept], len(self._keys))
            counted = self._counted(hashes)
            hashes = hashes[counted]
            documents = documents[counted]
        if 2 * (self._n + len(hashes)) > len(self._keys):
            used = self._values >= 0
            size = min(4 << (self._n + len(hashes)).bit_length(), 2 * self._max_hashes)
            self._rebuild(self._keys[used], self._values[used], size)
        self._place(hashes, documents)

    def _rebuild(self, hashes: np.ndarray, documents: np.ndarray, size: int) -> None:
        self._allocate(size)
        self._n = 0
        self._place(hashes, documents)

    def _place(self, hashes: np.ndarray, documents: np.ndarray) -> None:
        slots = self._slots(hashes)
        last = len(self._keys) - 1
        self._n += len(hashes)
        while len(hashes):
            free = self._values[slots] < 0
            self._values[slots[free]] = documents[free]  # of several for one slot the last stays
            self._keys[slots[free]] = hashes[free]
            waiting = self._keys[slots] != hashes
            hashes = hashes[waiting]
            documents = documents[waiting]
            slots = (slots[waiting] + 1) & last
