"""Apply learned merges to chunks: many short ones at once with numpy, one in Python, a long one
with a heap.

    Merges([(104, 105, 256)], byte_ids=range(256)).encode(b"hi")   # [256]

All three repeat "merge the pair of lowest rank, the leftmost first" until no pair is left.
"""

import heapq
import itertools
from collections.abc import Sequence

import numpy as np

from lm.tokenizers.table import Table, gather

_HEAP_FROM = 48  # bytes of a chunk from which the heap beats scanning all pairs for each merge
_LONG = 2048  # bytes of a chunk whose first merges numpy does
_WORTH = 200  # a numpy round over this many ids costs as much as one merge on the heap
_FEW = 256  # ids left in a batch below which plain Python ends sooner
_NONE = np.iinfo(np.int64).max


class Merges:
    """Ranked merges over ids; `byte_ids` gives the id of each byte."""

    def __init__(
        self,
        merges: Sequence[tuple[int, int, int]],
        byte_ids: Sequence[int],
        by_new_id: bool = False,
    ):
        self.byte_ids = list(byte_ids)
        ranks = [new for _, _, new in merges] if by_new_id else list(range(len(merges)))
        self.ranked = {
            (left, right): (rank, new)
            for (left, right, new), rank in zip(merges, ranks, strict=True)
        }
        self.in_order = _in_order(merges, ranks)
        left, right, new = np.array(merges, np.int64).reshape(-1, 3).T.astype(np.uint64)
        self.table = Table()
        value = np.array(ranks, np.int64) << 32 | new.astype(np.int64)
        self.table.insert(left << np.uint64(32) | right, np.zeros(len(left), np.uint64), value)
        self.byte_array = np.array(self.byte_ids, np.int64)

    def encode(self, chunk: bytes) -> list[int]:
        """Ids of one chunk."""
        if self.in_order and len(chunk) > _LONG:
            array = self._shrink(self.byte_array[np.frombuffer(chunk, np.uint8)])
            return self._heap(array.tolist())
        ids = [self.byte_ids[b] for b in chunk]
        return self._scan(ids) if len(ids) < _HEAP_FROM else self._heap(ids)

    def _scan(self, ids: list[int]) -> list[int]:
        ranked = self.ranked
        pairs = [ranked.get(pair, (_NONE, 0)) for pair in itertools.pairwise(ids)]
        while pairs:
            best = min(pairs)
            if best[0] == _NONE:
                break
            at = pairs.index(best)
            ids[at : at + 2] = [best[1]]
            del pairs[at]
            if at:
                pairs[at - 1] = ranked.get((ids[at - 1], ids[at]), (_NONE, 0))
            if at < len(pairs):
                pairs[at] = ranked.get((ids[at], ids[at + 1]), (_NONE, 0))
        return ids

    def _heap(self, ids: list[int]) -> list[int]:
        """n log n: a heap of (rank, position, left, right), in which entries that no longer hold
        are skipped.
        """
        ranked, n = self.ranked, len(ids)
        after = list(range(1, n + 1))
        before = list(range(-1, n - 1))
        heap = [
            (*ranked[pair], at, *pair)
            for at, pair in enumerate(itertools.pairwise(ids))
            if pair in ranked
        ]
        heap = [(rank, at, left, right, new) for rank, new, at, left, right in heap]
        heapq.heapify(heap)
        while heap:
            _, at, left, right, new = heapq.heappop(heap)
            second = after[at]
            if ids[at] != left or second >= n or ids[second] != right:
                continue
            ids[at], ids[second] = new, -1
            following = after[at] = after[second]
            if following < n:
                before[following] = at
                if found := ranked.get((new, ids[following])):
                    heapq.heappush(heap, (found[0], at, new, ids[following], found[1]))
            previous = before[at]
            if previous >= 0 and (found := ranked.get((ids[previous], new))):
                heapq.heappush(heap, (found[0], previous, ids[previous], new, found[1]))
        return [i for i in ids if i >= 0]

    def encode_many(
        self, data: bytes, start: np.ndarray, length: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the chunks data[start:start + length], end to end (n,), and how many each has.

        Each round merges the leftmost pair of lowest rank in every short chunk; all other chunks
        are encoded one by one.
        """
        short = length < _HEAP_FROM
        if np.count_nonzero(short) < 16:
            short[:] = False
        apart = np.flatnonzero(~short)
        spans = zip(start[apart].tolist(), length[apart].tolist(), strict=True)
        parts = [self.encode(data[a : a + n]) for a, n in spans]
        done_ids = [np.array([i for part in parts for i in part], np.int64)]
        done_owner = [np.repeat(apart, np.array([len(part) for part in parts], np.int64))]
        pool = np.frombuffer(data, np.uint8)
        ids = self.byte_array[gather(pool, start[short], length[short])]  # (n,)
        owner = np.repeat(np.flatnonzero(short), length[short])  # (n,) the chunk of each id
        found = self._find(ids, owner, np.arange(len(ids)))  # (n,) rank and new id of the pair here
        while len(ids) > _FEW:
            first = np.flatnonzero(np.concatenate(([True], owner[1:] != owner[:-1])))
            best = np.minimum.reduceat(found, first)  # (chunks left,)
            best = np.repeat(best, np.diff(first, append=len(ids)))
            going = best != _NONE
            done_ids.append(ids[~going])
            done_owner.append(owner[~going])
            at = np.flatnonzero((found == best) & going)
            hit = np.zeros(len(ids), bool)
            hit[at[np.diff(owner[at], prepend=-1) > 0]] = True
            ids, owner, found = self._apply(ids, owner, found, hit, going)
        for chunk in dict.fromkeys(owner.tolist()):
            rest = self._scan(ids[owner == chunk].tolist())
            done_ids.append(np.array(rest, np.int64))
            done_owner.append(np.full(len(rest), chunk))
        ids, owner = np.concatenate(done_ids), np.concatenate(done_owner)
        return ids[np.argsort(owner, kind="stable")], np.bincount(owner, minlength=len(length))

    def _shrink(self, ids: np.ndarray) -> np.ndarray:
        """The first merges of one long chunk, as long as each replaces a good part of it."""
        owner = np.zeros(len(ids), np.int64)
        found = self._find(ids, owner, np.arange(len(ids)))
        while (best := found.min()) != _NONE:
            hit = found == best
            hit &= ~_odd_in_run(hit)
            if np.count_nonzero(hit) * _WORTH < len(ids):
                break
            ids, owner, found = self._apply(ids, owner, found, hit, np.ones(len(ids), bool))
        return ids

    def _apply(
        self,
        ids: np.ndarray,
        owner: np.ndarray,
        found: np.ndarray,
        hit: np.ndarray,
        keep: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Merge the pairs that start at the hits; of the ids only those to keep come back."""
        ids[hit] = found[hit] & 0xFFFFFFFF
        keep[1:] &= ~hit[:-1]  # the second of each pair is gone
        ids, owner, found, hit = ids[keep], owner[keep], found[keep], hit[keep]
        hit[:-1] |= hit[1:]  # the pairs to look up again: at a new id, and just before one
        at = np.flatnonzero(hit)
        found[at] = self._find(ids, owner, at)
        return ids, owner, found

    def _find(self, ids: np.ndarray, owner: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Rank and new id, in one number, of the pairs that start at positions `at`, else _NONE."""
        after = np.minimum(at + 1, len(ids) - 1)
        key = ids[at].astype(np.uint64) << np.uint64(32) | ids[after].astype(np.uint64)
        found = self.table.find(key, np.zeros(len(key), np.uint64))
        found[(found < 0) | (owner[at] != owner[after]) | (at == after)] = _NONE
        return found


def _odd_in_run(hit: np.ndarray) -> np.ndarray:
    """Of neighbouring hits, which overlap: the second, fourth, ... of each run."""
    if not (hit[1:] & hit[:-1]).any():
        return np.zeros(len(hit), bool)
    index = np.arange(len(hit))
    run_start = np.maximum.accumulate(np.where(hit & np.concatenate(([True], ~hit[:-1])), index, 0))
    return hit & ((index - run_start) % 2 == 1)


def _in_order(merges: Sequence[tuple[int, int, int]], ranks: list[int]) -> bool:
    """Whether a pair always ranks after whatever makes its parts: then merging never opens a lower
    rank.
    """
    made_by: dict[int, int] = {}
    for (_, _, new), rank in zip(merges, ranks, strict=True):
        made_by[new] = max(made_by.get(new, -1), rank)
    return all(
        made_by.get(left, -1) < rank and made_by.get(right, -1) < rank
        for (left, right, _), rank in zip(merges, ranks, strict=True)
    )
