"""Training batches of a text whose shards come to be packed while training goes on.

The first epoch goes through the text in groups: the first part, then 1 shard, then 2, 4, 8 and so
on, so that a group has as much text as all before it. Within a group the windows are shuffled; a
batch needs no shard of a later group, and waits for those that it needs. From the second epoch on,
all windows are shuffled as one group. So a batch is a function of (seed, number) and the text
alone, whatever was packed when training began. Memory grows with the number of shards, and not with
their windows.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from lm.data.batches import Batches
from lm.data.permutation import Permutation
from lm.data.shards import Shards
from lm.system import seeds


class Group(NamedTuple):
    """Some stretches of a text, whose windows are shuffled."""

    stretches: range
    first_places: np.ndarray  # (n,) of each stretch, where its first window begins
    ends: np.ndarray  # (n,) how many windows it and those before it have
    order: Permutation


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
        self._ends: list[int] = []  # of the groups of the first epoch, in windows
        self._cached: dict[tuple[int, int], Group] = {}  # the last one, by its epoch and number

    def to(self, device: torch.device, resident: int = 0) -> "ShardBatches":
        """Hand out batches in the memory of a device; the ids stay on the disk."""
        self.device = device
        return self

    def at(self, numbers: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        rows = []
        for group, places_in_group in self._by_group(numbers):
            windows = group.order[places_in_group]
            which = np.searchsorted(group.ends, windows, side="right")
            before = np.append(0, group.ends)[which]
            places = group.first_places[which] + (windows - before) * self.context_len
            for i, place in zip(which.tolist(), places.tolist(), strict=True):
                ids = self._stretch(group.stretches[i])
                rows.append(ids[place : place + self.context_len + 1])
        block = self._send(np.stack(rows).astype(np.int64))  # (n, T + 1)
        return block[:, :-1].contiguous(), block[:, 1:].contiguous()

    def _by_group(self, numbers: np.ndarray) -> Iterator[tuple[Group, np.ndarray]]:
        """The groups of windows with ascending numbers, and their places in each."""
        while len(numbers):
            epoch, which, first = self._place(int(numbers[0]))
            group = self._group(epoch, which)
            n = int(np.searchsorted(numbers, first + group.order.n))
            yield group, numbers[:n] - first
            numbers = numbers[n:]

    def _place(self, window: int) -> tuple[int, int, int]:
        """The epoch and the group of a window, and the first window of that group."""
        first = 0
        for number in range(self._n_groups()):
            if number == len(self._ends):
                self._ends.append(first + self._group(0, number).order.n)
            if window < self._ends[number]:
                return 0, number, first
            first = self._ends[number]
        epoch = window // first
        return epoch, 0, epoch * first

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

    def _group(self, epoch: int, number: int) -> Group:
        if (epoch, number) not in self._cached:
            seed = seeds.seed(self.seed, f"shards of group {number}", epoch)
            stretches = self._stretches(epoch, number)
            n_targets = np.array([max(0, len(self._stretch(i)) - 1) for i in stretches])
            n_windows, n_left = np.divmod(n_targets, self.context_len)
            first_places = np.random.default_rng(seed).integers(n_left + 1)
            ends = np.cumsum(n_windows)
            order = Permutation(int(ends[-1]), seed)
            self._cached = {(epoch, number): Group(stretches, first_places, ends, order)}
        return self._cached[epoch, number]
