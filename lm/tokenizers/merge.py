"""Apply learned merges to chunks: many short ones at once with numpy, one in Python, a long one
with a heap.

    Merges([(104, 105, 256)], byte_ids=range(256)).encode(b"hi")   # [256]

All ways repeat "merge the pair of lowest rank, the leftmost first" until no pair is left.
"""

import heapq
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from lm.tokenizers.pairs import NO_RANK, PairRanks

_HEAP_FROM = 48  # bytes of a chunk from which the heap beats scanning all pairs for each merge
_LONG = 2048  # bytes of a chunk whose first merges numpy does
_WORTH = 200  # a numpy round over this many ids costs as much as one merge on the heap
_FEW = 32  # chunks below which plain Python ends sooner
_HEIGHTS = (12, _HEAP_FROM - 1)  # bytes of the chunks that are merged in one matrix
_TOGETHER = 1 << 14  # chunks in a matrix, which then stays in the cache
_ROW_BITS = 6  # _HEAP_FROM is less than 64
_ROW_MASK = (1 << _ROW_BITS) - 1
_NO_PAIR = NO_RANK << _ROW_BITS
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
        self.pairs = PairRanks(self.ranked)
        # By the two bytes of a pair in one number, int32 (65536,).
        ids = self.byte_array
        self._byte_ranks = self.pairs.find(np.repeat(ids, 256), np.tile(ids, 256))

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

        Short chunks are merged together, each of the others by itself.
        """
        pool = np.frombuffer(data, np.uint8)
        done_ids = [np.zeros(0, np.int64)]
        done_owner = [np.zeros(0, np.int64)]
        apart = length > _HEIGHTS[-1]
        if len(length) < _FEW:
            apart[:] = True
        for at in np.flatnonzero(apart).tolist():
            ids = self.encode(data[start[at] : start[at] + length[at]])
            done_ids.append(np.array(ids, np.int64))
            done_owner.append(np.full(len(ids), at))
        for low, height in itertools.pairwise((0, *_HEIGHTS)):
            group = np.flatnonzero((length > low) & (length <= height) & ~apart)
            for k in range(0, len(group), _TOGETHER):
                part = group[k : k + _TOGETHER]
                ids, count = self._merge_columns(pool, start[part], length[part], height)
                done_ids.append(ids)
                done_owner.append(np.repeat(part, count))
        ids = np.concatenate(done_ids)
        owner = np.concatenate(done_owner)
        count = np.bincount(owner, minlength=len(length))
        return ids[np.argsort(owner, kind="stable")], count

    def _merge_columns(
        self, pool: np.ndarray, start: np.ndarray, length: np.ndarray, height: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same for n chunks of at most `height` bytes, each a column of a matrix.

        Each round merges the leftmost pair of lowest rank in every column. Nothing is moved: the
        neighbours of an id are linked, and what is gone is -1. The last row stands for both borders
        of a chunk.
        """
        n = len(start)
        row = np.arange(height + 1, dtype=np.int32)[:, None]  # (height + 1, 1)
        raw = pool.take(start + row, mode="clip")  # (height + 1, n), H x n below
        ids = self.byte_array.take(raw)
        ids[row >= length] = -1
        # Rank and row of the pair that starts here: the least is the leftmost of the lowest rank.
        pair = np.full((height + 1, n), _NO_PAIR, np.int32)
        pair[:-1] = self._byte_ranks.take(raw[:-1].astype(np.uint16) << 8 | raw[1:])
        pair[row + 1 >= length] = NO_RANK
        pair <<= _ROW_BITS
        pair |= row
        after = np.repeat(np.minimum(row + 1, height), n)  # flat, H x n each
        before = np.repeat(np.where(row == 0, height, row - 1), n)
        flat_ids = ids.ravel()
        flat_pair = pair.ravel()
        while True:
            best = pair.min(axis=0)  # (n,)
            column = np.flatnonzero(best < _NO_PAIR)
            if len(column) < _FEW:
                break
            best = best.take(column)
            here = (best & _ROW_MASK).astype(np.int64)
            new = self.pairs.new_id.take(best >> _ROW_BITS)
            at = here * n + column
            second = after.take(at) * n + column
            right_row = after.take(second)
            right = right_row * n + column
            left_row = before.take(at)
            left = left_row * n + column
            flat_ids[at] = new
            flat_ids[second] = -1
            flat_pair[second] = _NO_PAIR
            after[at] = right_row
            before[right] = here
            found = self.pairs.find(
                np.concatenate((new, flat_ids.take(left))),
                np.concatenate((flat_ids.take(right), new)),
            )
            found <<= _ROW_BITS
            flat_pair[at] = found[: len(at)] | here
            flat_pair[left] = found[len(at) :] | left_row
        for k in column.tolist():
            rest = self.merge_by_scan([i for i in ids[:, k].tolist() if i >= 0])
            ids[:, k] = -1
            ids[: len(rest), k] = rest
        left = ids.T >= 0
        return ids.T[left], left.sum(axis=1)

    def _shrink(self, ids: np.ndarray) -> np.ndarray:
        """The first merges of one long chunk, as long as each replaces a good part of it."""
        found = np.append(self.pairs.find(ids[:-1], ids[1:]), np.int32(NO_RANK))
        while True:
            best = found.min()
            hit = found == best
            hit &= ~_odd_in_run(hit)
            if best == NO_RANK or np.count_nonzero(hit) * _WORTH < len(ids):
                return ids
            ids[hit] = self.pairs.new_id[best]
            keep = np.ones(len(ids), bool)
            keep[1:] = ~hit[:-1]  # the second of each pair is gone
            ids = ids[keep]
            found = found[keep]
            hit = hit[keep]
            hit[:-1] |= hit[1:]  # the pairs to look up again: at a new id, and just before one
            at = np.flatnonzero(hit[:-1])
            found[at] = self.pairs.find(ids[at], ids[at + 1])
            found[-1] = NO_RANK


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
    # The last rank that makes an id: ranks ascend, or are the new ids themselves.
    rank_of = {new: rank for (_, _, new), rank in zip(merges, ranks, strict=True)}
    for (left, right, _), rank in zip(merges, ranks, strict=True):
        if rank_of.get(left, -1) >= rank or rank_of.get(right, -1) >= rank:
            return False
    return True
