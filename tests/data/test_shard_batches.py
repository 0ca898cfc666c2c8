"""Batches of a text in shards are a function of (seed, number), whatever is packed by then."""

import tracemalloc

import numpy as np
import pytest

from lm.data.shard_batches import ShardBatches

LENGTHS = [41, 60, 7, 33, 2, 58, 0, 44]  # of the first part, and of the shards


class Parts:
    """Shards whose ids count upwards over all of them, and that remember which were asked for."""

    def __init__(self):
        ends = np.cumsum(LENGTHS)
        self.parts = [np.arange(end - n, end) for end, n in zip(ends, LENGTHS, strict=True)]
        self.asked = set()

    def __len__(self):
        return len(self.parts) - 1

    def ids(self, number):
        self.asked.add(number)
        return self.parts[number + 1]

    def times_first(self):
        return sum(LENGTHS) / LENGTHS[0]


def batches(seed=0, size=3, context=5, **ranks):
    parts = Parts()
    return ShardBatches(parts.parts[0], parts, size, context, seed, **ranks), parts


N_WINDOWS = sum(max(0, n - 1) // 5 for n in LENGTHS)


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_has_each_window_of_each_shard_once_and_none_goes_across(epoch):
    made, _ = batches()
    x, y = made.at(np.arange(epoch * N_WINDOWS, (epoch + 1) * N_WINDOWS))
    ends = np.cumsum(LENGTHS)
    of_shard = np.searchsorted(ends, x.numpy(), side="right")
    assert (of_shard == of_shard[:, :1]).all()
    assert (np.searchsorted(ends, y[:, -1].numpy(), side="right") == of_shard[:, 0]).all()
    assert (y == x + 1).all()
    assert len(np.unique(x.numpy())) == x.numel() == 5 * N_WINDOWS  # no target twice
    counts = np.bincount(of_shard[:, 0], minlength=len(LENGTHS))
    assert counts.tolist() == [max(0, n - 1) // 5 for n in LENGTHS]


def test_a_batch_waits_for_no_shard_of_a_later_group():
    made, parts = batches(size=1)
    seen = {}
    for number in range(N_WINDOWS):
        x, _ = made[number]
        shard = int(np.searchsorted(np.cumsum(LENGTHS), int(x[0, 0]), side="right"))
        seen.setdefault(shard, max(parts.asked, default=-1))
    assert seen[0] == -1  # the first part needs none
    assert seen[1] == 0
    assert seen[2] <= 2 and seen[3] <= 2  # the group of shards 1 and 2
    assert max(parts.asked) == len(parts) - 1


def test_any_batch_comes_alone_as_it_does_in_turn_and_ranks_divide_it():
    whole, _ = batches(seed=3)
    in_turn = [whole[number][0] for number in range(30)]
    for number in (29, 4, 0, 17):
        assert (batches(seed=3)[0][number][0] == in_turn[number]).all()
        ranks = [batches(seed=3, rank=rank, n_proc=3)[0] for rank in range(3)]
        for rank, own in enumerate(ranks):
            assert (own[number][0] == in_turn[number][rank::3]).all()
    others = batches(seed=4)[0]
    assert any((others[number][0] != in_turn[number]).any() for number in range(5))


def test_the_epoch_is_estimated_by_the_bytes_of_the_files():
    made, _ = batches()
    assert made.n_windows == round((LENGTHS[0] - 1) // 5 * sum(LENGTHS) / LENGTHS[0])


def test_a_first_part_that_is_shorter_than_a_window_is_refused():
    parts = Parts()
    with pytest.raises(ValueError, match="one window needs 42"):
        ShardBatches(parts.parts[0], parts, 3, 41, 0)


def test_memory_does_not_grow_with_the_windows():
    """All places of a group were drawn at once: 16 bytes for each window, three times over."""
    parts = Parts()
    parts.parts[1] = np.broadcast_to(np.int64(3), 10**12)
    made = ShardBatches(parts.parts[0], parts, 4, 5, seed=0)
    tracemalloc.start()
    x, _ = made.at(np.array([9, 10**6, 10**10]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert x.shape == (3, 5) and (x[1:] == 3).all()
    assert peak < 20_000_000  # with what numpy imports meanwhile
