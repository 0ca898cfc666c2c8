"""Apply learned merges to chunks: many short ones at once with numpy, one in Python, a long one
with a heap.

    Merges([(104, 105, 256)], byte_ids=range(256)).encode(b"hi")   # [256]

All ways repeat "merge the pair of lowest rank, the leftmost first" until no pair is left.
"""

import heapq
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from lm.tokenizers.table import Table, gather

_HEAP_FROM = 48  # bytes of a chunk from which the heap beats scanning all pairs for each merge
_LONG = 2048  # bytes of a chunk whose first merges numpy does
_WORTH = 200  # a numpy round over this many ids costs as much as one merge on the heap
_FEW = 256  # ids left in a batch below which plain Python ends sooner
_NONE = np.iinfo(np.int64).max  # the rank of a pair that is not merged

Merge = tuple[int, int, int]  # left id, right id, new id


class Merges:
    """Ranked merges over ids; `byte_ids` gives the id of each byte."""

    def __init__(
        self,
        merges: Sequence[Merge],
        byte_ids: Iterable[int],
        by_new_id: bool = False,
    ):
        self.byte_ids = list(byte_ids)
        self.byte_array = np.array(self.byte_ids, np.int64)
        if by_new_id:
            ranks = [new for _, _, new in merges]
        else:
            ranks = list(range(len(merges)))
        self.ranked: dict[tuple[int, int], tuple[int, int]] = {}  # rank and new id of each pair
        for rank, (left, right, new) in zip(ranks, merges, strict=True):
            self.ranked[left, right] = (rank, new)
        self.in_order = _in_order(merges, ranks)
        # The same pairs for numpy: rank and new id in one number.
        table = np.array(merges, np.int64).reshape(-1, 3)  # (merges, 3)
        key = _pair_key(table[:, 0], table[:, 1])
        self.table = Table()
        value = np.array(ranks, np.int64) << 32 | table[:, 2]
        self.table.insert(key, np.zeros(len(key), np.uint64), value)

    def encode(self, chunk: bytes) -> list[int]:
        """Ids of one chunk."""
        if self.in_order and len(chunk) > _LONG:
            array = self._shrink(self.byte_array[np.frombuffer(chunk, np.uint8)])
            return self.merge_by_heap(array.tolist())
        ids = [self.byte_ids[b] for b in chunk]
        if len(ids) < _HEAP_FROM:
            return self.merge_by_scan(ids)
        return self.merge_by_heap(ids)

    def merge_by_scan(self, ids: list[int]) -> list[int]:
        """Merge the ids of one chunk, looking at all pairs for each merge; changes the list."""
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

    def merge_by_heap(self, ids: list[int]) -> list[int]:
        """Merge the n ids of one chunk in n log n steps; changes the list.

        The heap holds (rank, position, left id, right id, new id); entries whose pair is no longer
        there are skipped.
        """
        ranked = self.ranked
        n = len(ids)
        after = list(range(1, n + 1))  # the position that follows each
        before = list(range(-1, n - 1))
        heap: list[tuple[int, int, int, int, int]] = []
        for at, (left, right) in enumerate(itertools.pairwise(ids)):
            found = ranked.get((left, right))
            if found:
                heap.append((found[0], at, left, right, found[1]))
        heapq.heapify(heap)
        while heap:
            _, at, left, right, new = heapq.heappop(heap)
            second = after[at]
            if ids[at] != left or second >= n or ids[second] != right:
                continue
            ids[at] = new
            ids[second] = -1
            following = after[second]
            after[at] = following
            if following < n:
                before[following] = at
                right = ids[following]
                found = ranked.get((new, right))
                if found:
                    heapq.heappush(heap, (found[0], at, new, right, found[1]))
            previous = before[at]
            if previous >= 0:
                left = ids[previous]
                found = ranked.get((left, new))
                if found:
                    heapq.heappush(heap, (found[0], previous, left, new, found[1]))
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
        done_ids = [np.array(list(itertools.chain.from_iterable(parts)), np.int64)]
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
            rest = self.merge_by_scan(ids[owner == chunk].tolist())
            done_ids.append(np.array(rest, np.int64))
            done_owner.append(np.full(len(rest), chunk))
        ids = np.concatenate(done_ids)
        owner = np.concatenate(done_owner)
        count = np.bincount(owner, minlength=len(length))
        return ids[np.argsort(owner, kind="stable")], count

    def _shrink(self, ids: np.ndarray) -> np.ndarray:
        """The first merges of one long chunk, as long as each replaces a good part of it."""
        owner = np.zeros(len(ids), np.int64)
        found = self._find(ids, owner, np.arange(len(ids)))
        while True:
            best = found.min()
            hit = found == best
            hit &= ~_odd_in_run(hit)
            if best == _NONE or np.count_nonzero(hit) * _WORTH < len(ids):
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
        """Merge the pairs that start at the hits. Returns ids, owner and found of those ids that
        are left of the ones to keep.
        """
        ids[hit] = found[hit] & 0xFFFFFFFF
        keep[1:] &= ~hit[:-1]  # the second of each pair is gone
        ids = ids[keep]
        owner = owner[keep]
        found = found[keep]
        hit = hit[keep]
        hit[:-1] |= hit[1:]  # the pairs to look up again: at a new id, and just before one
        at = np.flatnonzero(hit)
        found[at] = self._find(ids, owner, at)
        return ids, owner, found

    def _find(self, ids: np.ndarray, owner: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Rank and new id, in one number, of the pairs that start at positions `at`; _NONE where
        there is no merge.
        """
        after = np.minimum(at + 1, len(ids) - 1)
        key = _pair_key(ids[at], ids[after])
        found = self.table.find(key, np.zeros(len(key), np.uint64))
        found[(found < 0) | (owner[at] != owner[after]) | (at == after)] = _NONE
        return found


def _pair_key(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return left.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)


def _odd_in_run(hit: np.ndarray) -> np.ndarray:
    """Whether a hit is the second, fourth, ... of a run of neighbours, whose pairs overlap."""
    if not (hit[1:] & hit[:-1]).any():
        return np.zeros(len(hit), bool)
    index = np.arange(len(hit))
    is_first = hit & np.concatenate(([True], ~hit[:-1]))
    run_start = np.maximum.accumulate(np.where(is_first, index, 0))
    return hit & ((index - run_start) % 2 == 1)


def _in_order(merges: Sequence[Merge], ranks: list[int]) -> bool:
    """Whether a pair always ranks after whatever makes its parts: then merging never opens a lower
    rank.
    """
    rank_of: dict[int, int] = {}  # the last rank that makes an id
    for (_, _, new), rank in zip(merges, ranks, strict=True):
        rank_of[new] = max(rank_of.get(new, -1), rank)
    for (left, right, _), rank in zip(merges, ranks, strict=True):
        if rank_of.get(left, -1) >= rank or rank_of.get(right, -1) >= rank:
            return False
    return True
