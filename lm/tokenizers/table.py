"""A hash table from pairs of uint64 to int64 that looks up whole numpy arrays at a time.

    table = Table(); table.insert(lo, hi, values); table.find(lo, hi)   # -1 where a key is absent

Open addressing with linear probing. Keys are compared in full, so a hash collision costs time,
never exactness.
"""

import numpy as np

MAX_KEY_BYTES = 15  # of a byte string packed by `pack`: the 16th byte of the key holds the length

_MIX_LO = np.uint64(0x9E3779B97F4A7C15)
_MIX_HI = np.uint64(0xC2B2AE3D27D4EB4F)
# (16,) masks that keep the first n bytes of a little-endian word, for n = 0..15
_MASK_LO = np.array([(1 << 8 * min(n, 8)) - 1 for n in range(16)], np.uint64)
_MASK_HI = np.array([(1 << 8 * max(n - 8, 0)) - 1 for n in range(16)], np.uint64)
_LENGTH = np.arange(16, dtype=np.uint64) << np.uint64(56)


class Table:
    """Maps (lo, hi) to a value of at least 0; grows by itself."""

    def __init__(self, log_size: int = 12):
        self.n_entry = 0
        self._allocate(log_size)

    def _allocate(self, log_size: int) -> None:
        size = 1 << log_size
        self._shift = np.uint64(64 - log_size)
        self._lo = np.zeros(size, np.uint64)
        self._hi = np.zeros(size, np.uint64)
        self._value = np.full(size, -1, np.int64)  # -1 marks an empty slot

    def _slot(self, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
        return (hash_keys(lo, hi) >> self._shift).astype(np.intp)

    def find(self, lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
        """Values of n keys, int64 (n,), -1 for each key that is not in the table."""
        slot = self._slot(lo, hi)
        value = self._value.take(slot)
        other = self._lo.take(slot) != lo
        other |= self._hi.take(slot) != hi
        other &= value >= 0  # an empty slot ends the search
        last = len(self._value) - 1
        at = np.flatnonzero(other)
        while len(at):
            at_slot = (slot[at] + 1) & last
            slot[at] = at_slot
            found = self._value[at_slot]
            value[at] = found
            other = (self._lo[at_slot] != lo[at]) | (self._hi[at_slot] != hi[at])
            at = at[other & (found >= 0)]
        return value

    def insert(self, lo: np.ndarray, hi: np.ndarray, value: np.ndarray) -> None:
        """Add keys that are neither in the table nor repeated in the call."""
        need = self.n_entry + len(lo)
        if 2 * need > len(self._value):
            used = np.flatnonzero(self._value >= 0)
            used_lo = self._lo[used]
            used_hi = self._hi[used]
            used_value = self._value[used]
            self._allocate((4 * need - 1).bit_length())
            self._place(used_lo, used_hi, used_value)
        self._place(lo, hi, value)
        self.n_entry = need

    def _place(self, lo: np.ndarray, hi: np.ndarray, value: np.ndarray) -> None:
        last = len(self._value) - 1
        slot = self._slot(lo, hi)
        todo = np.arange(len(lo))
        while len(todo):
            free = todo[self._value[slot[todo]] < 0]
            self._value[slot[free]] = free  # of several keys for one slot the last stays
            winner = free[self._value[slot[free]] == free]
            at = slot[winner]
            self._lo[at] = lo[winner]
            self._hi[at] = hi[winner]
            self._value[at] = value[winner]
            placed = np.zeros(len(lo), bool)
            placed[winner] = True
            todo = todo[~placed[todo]]
            slot[todo] = (slot[todo] + 1) & last


def hash_keys(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """A hash of each of n keys, uint64 (n,), whose high bits are well mixed."""
    mixed = lo * _MIX_LO
    mixed ^= hi * _MIX_HI
    mixed ^= mixed >> np.uint64(29)
    mixed *= _MIX_LO
    return mixed


def distinct(lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ones among n keys: a position of each (d,), and for every key which of them it
    is, int64 (n,).
    """
    hashed = hash_keys(lo, hi)
    order = np.argsort(hashed)  # one word sorts three times as fast as two
    fresh = np.ones(len(order), bool)
    fresh[1:] = (np.diff(lo[order]) != 0) | (np.diff(hi[order]) != 0)
    if (fresh[1:] & (np.diff(hashed[order]) == 0)).any():  # two keys of one hash may alternate
        order = np.lexsort((hi, lo))
        fresh[1:] = (np.diff(lo[order]) != 0) | (np.diff(hi[order]) != 0)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(fresh) - 1
    return order[fresh], number


def words(data: bytes) -> np.ndarray:
    """The bytes as little-endian uint64, padded so that `pack` may read past the end."""
    return np.frombuffer(data + bytes(24 - len(data) % 8), "<u8")


def pack(
    data_words: np.ndarray, start: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keys (lo, hi), uint64 (n,) each, of the n strings data[start:start + length], where
    data_words = words(data) and no length is above MAX_KEY_BYTES.

    The key is the string itself, padded with zeros, with its length in the last byte.
    """
    word = start >> 3
    shift = (start.astype(np.uint64) & np.uint64(7)) << np.uint64(3)
    back = np.uint64(64) - shift  # numpy shifts by 64 give 0, which is what an aligned start needs
    first = data_words.take(word)
    second = data_words.take(word + 1)
    third = data_words.take(word + 2)
    lo = ((first >> shift) | (second << back)) & _MASK_LO.take(length)
    hi = ((second >> shift) | (third << back)) & _MASK_HI.take(length) | _LENGTH.take(length)
    return lo, hi


def gather(pool: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The n stretches pool[start:start + length], end to end; every length is at least 1.

    Positions step by one except at the start of a stretch: a running sum over the steps gives them
    all.
    """
    if not len(start):
        return pool[:0]
    end = np.cumsum(length)
    step = np.ones(end[-1], np.int64)
    step[0] = start[0]
    jump = start[1:] - start[:-1]
    jump -= length[:-1]
    jump += 1
    step[end[:-1]] = jump
    np.add.accumulate(step, out=step)
    return pool.take(step, mode="wrap")  # all are in range: this mode only saves the check
