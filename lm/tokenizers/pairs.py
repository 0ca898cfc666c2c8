"""The ranks of merges, for whole numpy arrays of pairs of ids at a time.

    ranks = PairRanks({(104, 105): (0, 256)}); ranks.find(np.array([104]), np.array([105]))   # [0]

Open addressing with linear probing, as in `table`, with one word for a key.
"""

from collections.abc import Mapping

import numpy as np

NO_RANK = (1 << 25) - 1  # of a pair that is not merged: above every rank

_MIX = np.uint64(0x9E3779B97F4A7C15)


class PairRanks:
    """Maps pairs of ids to ranks. `ranked` has the rank and the new id of each pair, and pairs of
    one rank have one new id; `new_id` gives it by rank, int64.
    """

    def __init__(self, ranked: Mapping[tuple[int, int], tuple[int, int]]):
        left, right = np.array(list(ranked), np.int64).reshape(-1, 2).T
        rank, new = np.array(list(ranked.values()), np.int64).reshape(-1, 2).T
        assert not len(rank) or rank.max() < NO_RANK, "ranks fit into 25 bits"
        self.new_id = np.zeros(rank.max(initial=-1) + 1, np.int64)
        self.new_id[rank] = new
        log_size = max(8, (4 * len(rank)).bit_length())
        self._shift = np.uint64(64 - log_size)
        self._last = (1 << log_size) - 1
        self._key = np.full(1 << log_size, -1, np.int64)  # -1 marks an empty slot
        self._rank = np.full(1 << log_size, NO_RANK, np.int32)
        key = left << 32 | right
        slot = self._slot(key)
        todo = np.arange(len(key))
        while len(todo):
            free = todo[self._key[slot[todo]] < 0]
            self._key[slot[free]] = key[free]  # of several keys for one slot the last stays
            placed = self._key[slot[todo]] == key[todo]
            self._rank[slot[todo[placed]]] = rank[todo[placed]]
            todo = todo[~placed]
            slot[todo] = (slot[todo] + 1) & self._last

    def _slot(self, key: np.ndarray) -> np.ndarray:
        return ((key.view(np.uint64) * _MIX) >> self._shift).view(np.int64)

    def find(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Ranks of n pairs of ids, int32 (n,), NO_RANK for each that is not merged, or that holds
        a negative id.
        """
        key = left.astype(np.int64)
        key <<= 32
        key |= right
        slot = self._slot(key)
        there = self._key.take(slot)
        rank = self._rank.take(slot)
        other = there != key
        rank[other] = NO_RANK
        rank[key < 0] = NO_RANK
        other &= there >= 0  # an empty slot ends the search
        at = np.flatnonzero(other)
        while len(at):
            at_slot = (slot[at] + 1) & self._last
            slot[at] = at_slot
            there = self._key[at_slot]
            same = there == key[at]
            rank[at[same]] = self._rank[at_slot[same]]
            at = at[~same & (there >= 0)]
        return rank
