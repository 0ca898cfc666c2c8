"""Learn byte-pair merges from counted chunks, exactly, with numpy.

    learn_merges({b"hug": 10, b"pug": 5}, n_merge=2)   # [(117, 103, 256), (104, 256, 257)]

All chunks lie in one flat array with a border between them. Every pair of neighbours has a number,
kept at its left position, and a count. A new token only makes pairs that did not exist before, so
the positions of a pair are written once, and its count never rises: a heap with lazy refresh is
exact, and one merge is a few array operations over the positions of its pair.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping

import numpy as np

from lm.tokenizers.merge import Merge

TIE_BREAKS = ("first-pair", "greatest-bytes")
MAX_TOKEN_BYTES = 1024  # a pair that would be longer is not merged

_BORDER = -1  # the symbol between two chunks
_DEAD = -2  # the symbol of a position that was merged into the one before it

Ids = list[int]


def learn_merges(
    chunk_counts: Mapping[bytes, int],
    n_merge: int,
    tie_break: str = "first-pair",
    progress: Callable[[int, int], None] | None = None,
) -> list[Merge]:
    """At most n_merge triples (left id, right id, new id), commonest pair first; new ids count up
    from 256. Fewer come back where no pair is left.

    Among pairs of equal count, `first-pair` takes the lowest (left id, right id), as rustbpe does,
    and `greatest-bytes` the lexicographically greatest pair of byte strings. No token is longer
    than MAX_TOKEN_BYTES: a text of one letter would double it with each merge.
    `progress(done, total)` counts merges.
    """
    if tie_break not in TIE_BREAKS:
        raise ValueError(f"tie_break={tie_break} is not one of {', '.join(TIE_BREAKS)}")
    state = _Pairs(chunk_counts)
    queue = _Queue(state, tie_break)
    merges: list[Merge] = []
    while len(merges) < n_merge:
        pair = queue.pop()
        if pair is None:
            break
        left, right = state.parts(pair)
        new = 256 + len(merges)
        merges.append((left, right, new))
        queue.add_token(left, right)
        first = state.merge(pair, left, right, new)
        queue.push(first)
        if progress and len(merges) % 64 == 0:
            progress(len(merges), n_merge)
    if progress:
        progress(len(merges), n_merge)
    return merges


class _Pairs:
    """The chunks as linked symbols, and for each pair its count and the positions where it stood
    when it came up.
    """

    def __init__(self, chunk_counts: Mapping[bytes, int]):
        items = sorted((chunk, count) for chunk, count in chunk_counts.items() if len(chunk) > 1)
        counts = [count for _, count in items]
        if sum(count * len(chunk) for chunk, count in items) >= 2**62:
            raise ValueError("the counts of all pairs together pass 2^62: scale the counts down")
        length = np.array([len(chunk) for chunk, _ in items], np.int64)
        n = int(length.sum()) + len(items) + 1  # a border before each chunk and one at the end
        border = np.append(np.cumsum(length + 1) - length - 1, n - 1)
        index = _integer_up_to(n)
        inside = np.ones(n, bool)
        inside[border] = False
        self.symbol = np.full(n, _BORDER, np.int32)
        self.symbol[inside] = np.frombuffer(b"".join(chunk for chunk, _ in items), np.uint8)
        self.weight = np.zeros(n, np.int64)
        self.weight[inside] = np.repeat(np.array(counts, np.int64), length)
        self.next = np.arange(1, n + 1, dtype=index)
        self.previous = np.arange(-1, n - 1, dtype=index)
        self.pair = np.zeros(n, np.int32)  # pair 0 is no pair: at borders and at each chunk's end
        self.count = np.zeros(1 << 16, np.int64)  # by pair; longer than there are pairs
        self.n_pair = 1
        self.left = [_BORDER]
        self.right = [_BORDER]
        self.places: list[np.ndarray] = [np.zeros(0, index)]
        at = np.flatnonzero(inside[:-1] & inside[1:]).astype(index)
        key = self.symbol[at].astype(np.uint16) << 8 | self.symbol[at + 1].astype(np.uint16)
        self._add(at, key, at, lambda keys: ((keys >> 8).tolist(), (keys & 255).tolist()))

    def parts(self, pair: int) -> tuple[int, int]:
        """Left and right id of the pair."""
        return self.left[pair], self.right[pair]

    def _add(
        self,
        at: np.ndarray,
        key: np.ndarray,
        weight_at: np.ndarray,
        ids_of: Callable[[np.ndarray], tuple[Ids, Ids]],
    ) -> None:
        """Number the pairs that now start at positions `at` (ascending), one number for each
        distinct key; `ids_of(keys)` gives their left and right ids.
        """
        if not len(at):
            return
        first = self.n_pair
        order = np.argsort(key, kind="stable")
        key = key[order]
        at = at[order]
        edge = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
        n = len(edge)
        last = first + n
        if last > len(self.count):
            self.count = np.concatenate((self.count, np.zeros(max(len(self.count), n), np.int64)))
        self.count[first:last] = np.add.reduceat(self.weight[weight_at][order], edge)
        numbers = np.arange(first, last, dtype=np.int32)
        self.pair[at] = np.repeat(numbers, np.diff(edge, append=len(at)))
        bounds = [*edge.tolist(), len(at)]
        self.places += [at[a:b] for a, b in itertools.pairwise(bounds)]
        left, right = ids_of(key[edge])
        self.left += left
        self.right += right
        self.n_pair = last

    def merge(self, pair: int, left: int, right: int, new: int) -> int:
        """Replace the pair everywhere by the new id, leftmost first. The pairs that this makes are
        numbered from the number that is returned.
        """
        symbol = self.symbol
        at = self.places[pair]
        at = at[self.pair[at] == pair]
        self.places[pair] = self.places[0]  # none: a slice of `at` would keep all of it
        if left == right:
            at = _without_overlaps(at, self.next)
        second = self.next[at]
        after = self.next[second]
        symbol[at] = new
        symbol[second] = _DEAD
        previous = self.previous[at]
        previous = previous[symbol[previous] != _DEAD]  # else the pair before was merged as well
        # The pairs that go: this one, the one at its second symbol, the one before it.
        gone = np.concatenate((self.pair[second], self.pair[previous]))
        heirs = np.concatenate((at, self.next[previous]))
        np.subtract.at(self.count, gone, self.weight[heirs])
        self.count[pair] = 0
        self.pair[second] = 0
        self.next[at] = after
        self.previous[after] = at
        first = self.n_pair
        after_symbol = symbol[after]
        inner = after_symbol != _BORDER
        self.pair[at] = 0
        at = at[inner]
        self._add(at, after_symbol[inner], at, lambda keys: ([new] * len(keys), keys.tolist()))
        previous_symbol = symbol[previous]
        inner = previous_symbol != _BORDER
        at = previous[inner]
        self._add(at, previous_symbol[inner], at, lambda keys: (keys.tolist(), [new] * len(keys)))
        return first


def _integer_up_to(n: int) -> type[np.signedinteger]:
    """The integers for positions from -1 to n: half the memory where 32 bits hold them."""
    return np.int32 if n <= np.iinfo(np.int32).max else np.int64


def _without_overlaps(at: np.ndarray, next_of: np.ndarray) -> np.ndarray:
    """The first, third, ... position of each run such as aaaa, in which the pairs overlap."""
    if len(at) < 2:
        return at
    linked = np.concatenate(([False], next_of[at[:-1]] == at[1:]))
    index = np.arange(len(at))
    run_start = np.maximum.accumulate(np.where(linked, 0, index))
    return at[(index - run_start) % 2 == 0]


class _Queue:
    """Pairs by count, then by the tie rule; only those above a falling threshold enter the heap."""

    def __init__(self, state: _Pairs, tie_break: str):
        self.state = state
        self.by_bytes = tie_break == "greatest-bytes"
        self.lengths = [1] * 256  # in bytes, by id
        self.tokens = [bytes([byte]) for byte in range(256)]
        self.sort_keys = [_descending(token) for token in self.tokens]
        self.heap: list[tuple] = []  # (-count, tie, pair)
        self.threshold = max(1, int(state.count[: state.n_pair].max()) // 4)
        self.push(1)

    def add_token(self, left: int, right: int) -> None:
        """Learn the length of the next new token, and its bytes where the tie rule needs them."""
        self.lengths.append(self.lengths[left] + self.lengths[right])
        if self.by_bytes:
            token = self.tokens[left] + self.tokens[right]
            self.tokens.append(token)
            self.sort_keys.append(_descending(token))

    def push(self, first: int, below: float = np.inf) -> None:
        """Enter those of the pairs from number `first` on whose count is at least the threshold,
        and less than `below`.
        """
        count = self.state.count[first : self.state.n_pair]
        enter = (count >= self.threshold) & (count < below)
        for pair in (np.flatnonzero(enter) + first).tolist():
            self._enter(int(self.state.count[pair]), pair)

    def _enter(self, count: int, pair: int) -> None:
        left, right = self.state.parts(pair)
        if self.lengths[left] + self.lengths[right] > MAX_TOKEN_BYTES:
            return
        tie = (self.sort_keys[left], self.sort_keys[right]) if self.by_bytes else (left, right)
        heapq.heappush(self.heap, (-count, tie, pair))

    def pop(self) -> int | None:
        """The best pair, or None when none is left. An entry whose count fell goes back with its
        new count.
        """
        while True:
            while self.heap:
                negative, _, pair = heapq.heappop(self.heap)
                count = int(self.state.count[pair])
                if count == -negative:
                    return pair
                if count >= self.threshold:
                    self._enter(count, pair)
            if self.threshold == 1:
                return None
            below = self.threshold
            self.threshold = max(1, self.threshold // 2)
            self.push(1, below)


def _descending(token: bytes) -> tuple[int, ...]:
    """A key that sorts byte strings from the greatest to the least; 256 puts a longer one before
    its prefix.
    """
    return (*(255 - byte for byte in token), 256)
