"""Training batches of a text whose shards come to be packed while training goes on.

The first epoch goes through the text in groups: the first part, then 1 shard, then 2, 4, 8 and so
on, so that a group has as much text as all before it. Within a group the windows are shuffled
exactly; a batch needs no shard of a later group, and waits for those that it needs. From the second
epoch on, all windows are shuffled as one group. So a batch is a function of (seed, number) and the
text alone, whatever was packed when training began.
"""

import numpy as np
import torch

from lm.data.batches import Batches
from lm.data.shards import Shards
from lm.system import seeds


class ShardBatches(Batches):
    """The batches of a first part `ids` (n,) and of the shards behind it.

    In an epoch the windows of a shard lie side by side from a drawn offset on; fewer than
    `context_len` targets of each shard are left out. `n_windows` estimates an epoch by the bytes
    of the files, as the number of tokens is known once all are packed.
    """

    def __init__(
        self,
        ids: np.ndarray,
        shards: Shards,
        batch_size: int,
        context_len: int,
        seed: int,
        rank: int = 0,
        n_proc: int = 1,
    ) -> None:
        super().__init__(ids, batch_size, context_len, seed, rank, n_proc)
        self.shards = shards
        self.n_windows = round(self.n_windows * shards.times_first())
        self._ends: list[int] = []  # of the groups of the first epoch, in visits
        self._cached_group = (-1, -1)  # the epoch and group whose windows are kept
        self._cached_windows = np.zeros((0, 2), dtype=np.int64)

    def to(self, device: torch.device, resident: int = 0) -> "ShardBatches":
        """Hand out batches in the memory of a device; the ids stay on the disk."""
        self.device = device
        return self

    def at(self, visits: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        rows = []
        for visit in visits.tolist():
            stretch, start = self._window(visit)
            rows.append(self._stretch(stretch)[start : start + self.context_len + 1])
        block = self._send(np.stack(rows).astype(np.int64))  # (n, T + 1)
        return block[:, :-1].contiguous(), block[:, 1:].contiguous()

    def _window(self, visit: int) -> tuple[int, int]:
        """The stretch and the place in it at which the window of a visit begins."""
        group = 0
        while group < self._n_groups():
            if group == len(self._ends):
                self._ends.append(sum(self._ends[-1:]) + len(self._windows(0, group)))
            if visit < self._ends[group]:
                first = self._ends[group - 1] if group else 0
                return self._row(0, group, visit - first)
            group += 1
        epoch, row = divmod(visit, self._ends[-1])
        return self._row(epoch, 0, row)

    def _row(self, epoch: int, group: int, row: int) -> tuple[int, int]:
        stretch, start = self._windows(epoch, group)[row]
        return int(stretch), int(start)

    def _n_groups(self) -> int:
        """Of the first epoch."""
        return 1 + len(self.shards).bit_length()

    def _stretches(self, epoch: int, group: int) -> range:
        """What a group is of: 0 is the first part, i the shard i - 1."""
        n = 1 + len(self.shards)
        if epoch:
            return range(n)
        return range(1 << group >> 1, min(n, 1 << group))

    def _stretch(self, number: int) -> np.ndarray:
        return self.shards.ids(number - 1) if number else self.ids

    def _windows(self, epoch: int, group: int) -> np.ndarray:
        """The windows of a group in the order of their visits: stretch and place, (n, 2)."""
        if (epoch, group) != self._cached_group:
            random = np.random.default_rng(seeds.seed(self.seed, f"shards of group {group}", epoch))
            parts = []
            for number in self._stretches(epoch, group):
                n_targets = max(0, len(self._stretch(number)) - 1)
                n, n_left = divmod(n_targets, self.context_len)
                first = random.integers(n_left + 1)
                places = first + np.arange(n) * self.context_len
                parts.append(np.stack([np.full(n, number), places], axis=1))
            self._cached_windows = random.permutation(np.concatenate(parts))
            self._cached_group = (epoch, group)
        return self._cached_windows
