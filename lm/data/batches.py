"""The training batches and the evaluation windows: batch n is a pure function of (seed, n).

batches = Batches(ids, batch_size=32, context_len=128, seed=0)
x, y = batches[n]                          # (B, T) ids, and the ids that follow each of them
DataLoader(batches, batch_size=None, sampler=range(100), num_workers=2)     # the same batches
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from lm.metrics import IGNORE
from lm.system import seeds

RESIDENT = 1 << 30  # bytes of a GPU's memory that the training tokens may take


class Batches(torch.utils.data.Dataset):
    """The training batches of a token array; `batches[n]` needs no state and no history.

    Each epoch draws every target once, in windows of context_len and an order of its own. What is
    left over, fewer targets than a window has, is left out of that epoch. It lies elsewhere in the
    next one, so that over the epochs every target is drawn equally often, to within one. Where the
    windows begin changes with each epoch, too; one that meets the left-out targets or the end of
    the text goes on behind them.

    Windows are numbered over all epochs: number n is window n % n_windows of epoch n // n_windows,
    in the order of that epoch. Batch b has the numbers from b * batch_size on; `len` is the number
    of batches in an epoch, rounded up. Of several processes each gets its share of the rows of the
    same batch, rank 0 the first ones.
    """

    def __init__(
        self,
        ids: np.ndarray,
        batch_size: int,
        context_len: int,
        seed: int,
        rank: int = 0,
        n_proc: int = 1,
    ) -> None:
        if len(ids) <= context_len:
            raise ValueError(
                f"the training text has {len(ids)} tokens, and one window needs "
                f"{context_len + 1}: lower model.context_len or give more text"
            )
        self.ids = ids
        self.batch_size = batch_size
        self.context_len = context_len
        self.seed = seed
        self.rank = rank
        self.n_proc = n_proc
        self.tokens = batch_size * context_len  # in a batch, over all processes
        self.n_targets = len(ids) - 1  # target t is the id t + 1, predicted from the ids up to t
        self.n_windows = self.n_targets // context_len  # in an epoch
        self.n_drawn = self.n_windows * context_len  # targets in an epoch
        self.device = torch.device("cpu")
        self.resident_ids: torch.Tensor | None = None  # all ids, in the memory of a GPU
        self._cached_epoch = -1  # the epoch whose starts are kept, to save making them again
        self._cached_starts = np.zeros((0, 2), dtype=np.int64)

    def __len__(self) -> int:
        return math.ceil(self.n_windows / self.batch_size)

    def to(self, device: torch.device, resident: int = RESIDENT) -> "Batches":
        """Hand out batches in the memory of a device.

        Ids that take up to `resident` bytes on a GPU move there as a whole, and of a batch only
        the starts of its windows are sent.
        """
        self.device = device
        if device.type != "cpu" and 4 * len(self.ids) <= resident:
            self.resident_ids = torch.from_numpy(self.ids.astype(np.int32)).to(device)
        return self

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of a batch, both (B, T) int64; any number >= 0, in any order."""
        if number < 0:
            raise IndexError(f"batch {number} is negative")
        first = number * self.batch_size
        begin = first + self.rank * self.batch_size // self.n_proc
        end = first + (self.rank + 1) * self.batch_size // self.n_proc
        return self.at(np.arange(begin, end))

    def at(self, numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (n, T) of windows by their numbers, ascending (n,)."""
        starts = self.starts(numbers)
        places, firsts = starts[:, :1], starts[:, 1:]
        return self._cut(places, firsts, self.n_targets, self.n_drawn)

    def starts(self, numbers: np.ndarray) -> np.ndarray:
        """Where windows begin, by their numbers, ascending (n,): (n, 2).

        That is a place among the targets that the window's epoch draws, and the first of these.
        Of 10 tokens the targets are 0 to 8, and with context_len=4 an epoch draws 8 of the 9, such
        as 6 7 8 0 1 2 3 4, in two windows:

            starts    targets of the window
            (1, 6)    7 8 0 1       from place 1 on; behind the end of the text comes its beginning
            (5, 6)    2 3 4 6       place 8 would be target 5, which is left out: place 0 instead
        """
        if not len(numbers):
            return np.empty((0, 2), dtype=np.int64)
        epochs = numbers // self.n_windows
        starts = np.empty((len(numbers), 2), dtype=np.int64)
        for epoch in range(epochs[0], epochs[-1] + 1):
            rows = slice(*np.searchsorted(epochs, [epoch, epoch + 1]))
            starts[rows] = self._epoch(epoch)[numbers[rows] % self.n_windows]
        return starts

    def _epoch(self, epoch: int) -> np.ndarray:
        """The starts of an epoch's windows in the order of their numbers, (n_windows, 2)."""
        if epoch != self._cached_epoch:
            random = np.random.default_rng(seeds.seed(self.seed, "batches", epoch))
            cut = random.integers(self.context_len)
            starts = np.empty((self.n_windows, 2), dtype=np.int64)
            starts[:, 0] = cut + random.permutation(self.n_windows) * self.context_len
            starts[:, 1] = self._first_target(epoch)
            self._cached_starts = starts
            self._cached_epoch = epoch
        return self._cached_starts

    def _first_target(self, epoch: int) -> int:
        """The first target behind those that an epoch leaves out."""
        n_left_out = self.n_targets - self.n_drawn
        start = seeds.seed(self.seed, "left out") + (epoch + 1) * n_left_out
        return start % self.n_targets

    def _cut(
        self,
        places: np.ndarray,
        firsts: np.ndarray,
        n_targets: np.ndarray | int,
        n_drawn: np.ndarray | int,
        begin: np.ndarray | int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (n, T) of windows; `places` and `firsts` (n, 1) are the columns of
        `starts`.

        The text of a window has `n_targets` targets, begins at `begin` in `ids`, and its epoch
        draws `n_drawn` of them.
        """
        in_text = (firsts + places) % n_targets  # (n, 1)
        in_one_piece = places + self.context_len <= n_drawn
        in_one_piece &= in_text + self.context_len <= n_targets
        if in_one_piece.all():
            block = self._ids_at(in_text + begin, self.context_len + 1)  # (n, T + 1)
            inputs, targets = block[:, :-1], block[:, 1:]
        else:
            every_place = (places + np.arange(self.context_len)) % n_drawn  # (n, T)
            in_text = (firsts + every_place) % n_targets + begin
            inputs, targets = self._ids_at(in_text[..., None], 2).unbind(-1)
        return inputs.contiguous(), targets.contiguous()  # alike in memory, for the compiler

    def _ids_at(self, positions: np.ndarray, n: int) -> torch.Tensor:
        """The n ids from each of `positions` (..., 1) in the text on, (..., n) int64."""
        if self.resident_ids is not None:
            offsets = torch.arange(n, device=self.device)
            return self.resident_ids[self._send(positions) + offsets].long()
        return self._send(self.ids[positions + np.arange(n)].astype(np.int64))

    def _send(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)  # it need not wait for it


def windows(
    ids: np.ndarray, batch_size: int, context_len: int, stride: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Every target of `ids` exactly once, in fixed windows: the evaluation pass.

    They lie side by side, or begin every `stride` tokens: then each scores its last `stride`
    targets alone, which have more to look back at, for context_len / stride times the work.
    Yields inputs and targets (B, T); a target that another window scores, or behind the end of
    the text, is IGNORE.
    """
    n_targets = len(ids) - 1
    stride = stride or context_len
    rest = max(0, n_targets - context_len)  # targets behind the first window
    starts = np.arange(0, rest + stride, stride)
    for row in range(0, len(starts), batch_size):
        places = starts[row : row + batch_size, None] + np.arange(context_len)  # (B, T)
        x = torch.from_numpy(ids[np.minimum(places, n_targets)].astype(np.int64))
        y = torch.from_numpy(ids[np.minimum(places + 1, n_targets)].astype(np.int64))
        is_context = np.arange(context_len) < context_len - stride  # but in the first window
        scored_before = is_context & (places[:, :1] > 0)
        y[torch.from_numpy(scored_before | (places >= n_targets))] = IGNORE
        yield x, y
