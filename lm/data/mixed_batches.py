"""Training batches from several sources, each with its share of the rows.

batches = MixedBatches(ids, {"wiki": 90_000, "plays": 10_000}, {"wiki": 0.7, "plays": 0.3}, ...)
x, y = batches[n]               # (B, T): a pure function of (seed, n), as of Batches

The rows of all steps are numbered: row r of step s has the number s * B + r. Of the first n rows,
a source with the weight w has w * n, rounded, at every n: rows of the sources alternate as evenly
as they can, so a batch has from each what its weight says, and no error builds up. Which row comes
from which source does not depend on the seed; what the source gives does.
"""

from collections.abc import Mapping

import numpy as np
import torch

from lm.data.batches import Batches

BLOCK = 1 << 12  # rows that are laid out at a time
BITS = 40  # of the fraction of a share; its product with BLOCK fits 64 bits
HALF = 1 << (BITS - 1)


class MixedBatches(Batches):
    """The batches of a token array that holds one source after the other.

    `lengths` are the tokens of each source, in order, and `weights` the shares of the rows that
    come from each; they sum to 1. Row by row, each source goes through its epochs as in `Batches`
    of its own: over these, each of its targets is drawn equally often, to within one. One with the
    weight 0 is not drawn from.

    An epoch of the whole has as many windows as one of each source together.
    """

    def __init__(
        self,
        ids: np.ndarray,
        lengths: Mapping[str, int],
        weights: Mapping[str, float],
        batch_size: int,
        context_len: int,
        seed: int,
        rank: int = 0,
        n_proc: int = 1,
    ) -> None:
        self.sources: dict[str, Batches] = {}
        self._begins: list[int] = []  # of the sources drawn from, in `ids`
        begin = 0
        for name, length in lengths.items():
            if weights[name] > 0:
                own = ids[begin : begin + length]
                self.sources[name] = _source(name, own, context_len, seed)
                self._begins.append(begin)
            begin += length
        super().__init__(ids, batch_size, context_len, seed, rank, n_proc)
        self.n_windows = sum(source.n_windows for source in self.sources.values())
        self.weights = {name: weights[name] for name in self.sources}
        self._shares = _shares(list(self.weights.values()))
        self._cached_block = -1  # the block whose windows are kept
        self._cached_windows = np.zeros((0, 5), dtype=np.int64)

    def at(self, numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        blocks = numbers // BLOCK
        windows = np.empty((len(numbers), 5), dtype=np.int64)
        for block in range(blocks[0], blocks[-1] + 1):
            rows = blocks == block
            windows[rows] = self._block(block)[numbers[rows] % BLOCK]
        return self._cut(*windows.T[..., None])

    def epochs(self, steps: int) -> dict[str, float]:
        """How often each source has been gone through after so many steps."""
        n_rows = steps * self.batch_size
        found = {}
        for name, source in self.sources.items():
            found[name] = n_rows * self.weights[name] / source.n_windows
        return found

    def _block(self, block: int) -> np.ndarray:
        """For each row of a block what `_cut` takes: (BLOCK, 5)."""
        if block != self._cached_block:
            self._cached_windows = self._laid_out(block * BLOCK)
            self._cached_block = block
        return self._cached_windows

    def _laid_out(self, first: int) -> np.ndarray:
        windows = np.empty((BLOCK, 5), dtype=np.int64)
        # A source takes its share of the rows that those before it have left. How many these are,
        # before the block and in it before each row, is all that needs to be known of the past.
        left_before = first  # a Python integer, so that no product is too large
        left = np.arange(BLOCK + 1)
        for source, begin, share in zip(
            self.sources.values(), self._begins, self._shares, strict=True
        ):
            before, rest = divmod(left_before * share + HALF, 1 << BITS)
            own = (rest + left * share) >> BITS  # rows of this source in the block, before each
            rows = np.flatnonzero(np.diff(own))
            windows[rows, :2] = source.starts(before + own[rows])
            windows[rows, 2:] = (source.n_targets, source.n_drawn, begin)
            left_before -= before
            left = left - own
        return windows


def _source(name: str, ids: np.ndarray, context_len: int, seed: int) -> Batches:
    try:
        return Batches(ids, 1, context_len, seed)
    except ValueError as error:
        raise ValueError(f"corpus.parts.{name}: {error}") from None


def _shares(weights: list[float]) -> list[int]:
    """The share that each source has of what those before it leave, in units of 2^-BITS."""
    return [round(weight / sum(weights[i:]) * (1 << BITS)) for i, weight in enumerate(weights)]
