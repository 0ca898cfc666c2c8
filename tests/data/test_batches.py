"""A batch is a function of (seed, number); each target is scored once."""

import time

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lm import metrics
from lm.data.batches import Batches, windows
from lm.data.mixed_batches import MixedBatches
from tests.helpers import timed


def test_targets_are_the_inputs_one_later():
    x, y = Batches(np.arange(1000), 4, 10, seed=0)[3]
    assert x.shape == y.shape == (4, 10)
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert torch.equal(y, x + 1)  # the text counts upwards


@settings(max_examples=80, deadline=None)
@given(data=st.data(), context=st.integers(2, 40), size=st.integers(1, 9), seed=st.integers(0, 9))
@example(data=None, context=128, size=16, seed=0)  # 383 ids: the last third was never drawn
def test_the_epochs_draw_every_target_equally_often_and_none_draws_one_twice(
    data, context, size, seed
):
    n = data.draw(st.integers(context + 1, 9 * context)) if data else 383
    batches = Batches(np.arange(n), size, context, seed)
    n_epochs = 12
    steps = range(-(-n_epochs * batches.n_windows // size))
    drawn = np.concatenate([batches[step][1].numpy() for step in steps])  # (visits, T)
    counts = np.zeros(n, dtype=int)
    for epoch in range(n_epochs):
        windows = drawn[epoch * batches.n_windows : (epoch + 1) * batches.n_windows]
        counts[windows] += 1
        assert windows.size == len(np.unique(windows)) > n - 1 - context
        assert counts[0] == 0  # nothing stands before the first id, to predict it from
        assert counts[1:].max() - counts[1:].min() <= 1


@settings(max_examples=40, deadline=None)
@given(data=st.data(), context=st.integers(2, 40))
def test_a_window_jumps_only_behind_the_end_and_the_left_out_stretch(data, context):
    n = data.draw(st.integers(context + 1, 9 * context))
    batches = Batches(np.arange(n), 1, context, seed=2)
    for epoch in range(3):
        steps = range(epoch * batches.n_windows, (epoch + 1) * batches.n_windows)
        inputs = np.concatenate([batches[step][0].numpy() for step in steps])
        targets = np.concatenate([batches[step][1].numpy() for step in steps])
        assert np.array_equal(targets, inputs + 1)
        assert np.count_nonzero(np.diff(inputs) != 1) <= 2


def test_a_batch_depends_on_seed_and_step_and_on_nothing_else():
    text = np.random.default_rng(0).integers(0, 50, 5000)
    forwards, backwards = (Batches(text, 4, 16, seed=7) for _ in range(2))
    steps = list(range(200))
    seen = {s: backwards[s][0] for s in reversed(steps)}
    assert all(torch.equal(forwards[s][0], seen[s]) for s in steps)
    other = Batches(text, 4, 16, seed=8)
    assert not any(torch.equal(other[s][0], seen[s]) for s in steps[:20])


def test_any_batch_may_be_the_first_that_is_asked_for():
    text = np.random.default_rng(0).integers(0, 50, 500)
    batches = Batches(text, 4, 16, seed=7)
    for step in range(40):  # of five epochs
        first = Batches(text, 4, 16, seed=7)[step]
        assert all(map(torch.equal, first, batches[step]))
    with pytest.raises(IndexError, match="batch -1 is negative"):
        batches[-1]


def test_the_batches_of_a_seed_stay_what_they_were():
    """Or a run that goes on after an update of the code reads some of its text twice."""
    batches = Batches(np.arange(48), 2, 10, seed=5)
    firsts = [batches[step][0][:, 0].tolist() for step in range(6)]  # of three epochs
    assert firsts == [[36, 26], [46, 16], [33, 23], [43, 6], [31, 14], [4, 41]]


@pytest.mark.parametrize("n_proc", [1, 2, 3, 8])
def test_processes_share_the_rows_of_a_batch_in_their_order(n_proc):
    whole = Batches(np.arange(1000), 8, 16, seed=7)
    shares = [Batches(np.arange(1000), 8, 16, 7, rank, n_proc) for rank in range(n_proc)]
    for step in (0, 5, 12):
        for whole_ids, *parts in zip(whole[step], *[share[step] for share in shares], strict=True):
            assert torch.equal(torch.cat(parts), whole_ids)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert {share.tokens for share in shares} == {8 * 16}


@pytest.mark.parametrize(("size", "n_batches"), [(1, 100), (4, 25), (3, 34), (200, 1)])
def test_the_length_is_the_batches_that_an_epoch_begins(size, n_batches):
    assert len(Batches(np.arange(1001), size, 10, seed=0)) == n_batches


def test_a_text_that_lies_behind_another_is_cut_within_itself():
    """Both as whole windows and as those that jump at a seam."""
    lengths = {"first": 150, "second": 37}
    mixed = MixedBatches(np.arange(187), lengths, {"first": 0.0, "second": 1.0}, 4, 5, seed=3)
    n_jumps = 0
    for step in range(40):
        inputs, targets = mixed[step]
        assert inputs.min() >= 150 and targets.max() < 187 and torch.equal(targets, inputs + 1)
        n_jumps += int((inputs.diff(dim=1) != 1).sum())
    assert n_jumps > 0


def test_no_windows_have_no_starts():
    none = Batches(np.arange(100), 4, 10, seed=0).starts(np.arange(0))
    assert none.shape == (0, 2) and none.dtype == np.int64


@pytest.mark.parametrize("n", [1001, 1003, 1026])  # left out: nothing, 2, half of a window
def test_epochs_differ_in_order_and_in_their_cuts(n):
    batches = Batches(np.arange(n), 10, 50, seed=0)
    first, second = (np.concatenate([batches[e * 2 + i][1] for i in (0, 1)]) for e in (0, 1))
    assert not np.array_equal(first, second)
    cuts = {int(batches[step][0][0, 0] % 50) for step in range(0, 60, 2)}
    assert len(cuts) > 10


def test_a_dataloader_with_workers_yields_the_same_batches():
    batches = Batches(np.arange(2000), 4, 16, seed=3)
    loader = DataLoader(batches, batch_size=None, sampler=range(5, 25), num_workers=2)
    for step, (x, y) in enumerate(loader, start=5):
        assert torch.equal(x, batches[step][0])
        assert torch.equal(y, batches[step][1])
    assert step == 24


def test_batches_cut_from_ids_on_the_device_are_the_same():
    here, there = (Batches(np.arange(2000, dtype=np.uint16), 4, 16, seed=3) for _ in range(2))
    there.resident_ids = torch.from_numpy(there.ids.astype(np.int32))  # what `to` does for a GPU
    for step in range(80):  # two epochs and their seams
        for a, b in zip(here[step], there[step], strict=True):
            assert torch.equal(a, b) and a.dtype == b.dtype == torch.int64
            assert a.is_contiguous() and b.is_contiguous()  # compiled once for all batches
    assert here.to(torch.device("meta"))[0][0].is_meta and here.resident_ids is not None
    assert here.to(torch.device("meta"), resident=7999).resident_ids is not None
    for device, room, moves in (("meta", 8000, True), ("meta", 7999, False), ("cpu", 8000, False)):
        sent = Batches(here.ids, 4, 16, 0).to(torch.device(device), resident=room)  # 2,000 ids
        assert (sent.resident_ids is not None) == moves
        assert not moves or sent.resident_ids.dtype == torch.int32  # four bytes each


def test_a_text_shorter_than_a_window_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="has 10 tokens, and one window needs 11: lower"):
        Batches(np.arange(10), 4, 10, seed=0)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 300),
    size=st.integers(1, 5),
    context=st.integers(2, 30),
    share=st.floats(0, 1),
)
def test_evaluation_windows_hold_every_target_exactly_once(n, size, context, share):
    stride = int(share * context)  # 0: side by side
    inputs, targets = [], []
    for x, y in windows(np.arange(n), size, context, stride):
        assert x.shape == y.shape
        assert x.shape[0] <= size
        assert x.shape[1] == context
        scored = y != metrics.IGNORE
        assert scored.any(dim=1).all()  # no window is there for nothing
        inputs += x[scored].tolist()
        targets += y[scored].tolist()
        first = x[:, 0] == 0
        assert not scored[~first, : context - (stride or context)].any()  # these have context
    assert targets == list(range(1, n))
    assert inputs == list(range(n - 1))


@timed
def test_a_batch_of_many_epochs_is_drawn_in_time_linear_in_its_windows():
    """A million windows of a short text took minutes: each epoch looked at all of them."""
    batches = Batches(np.arange(1025, dtype=np.uint16), 1 << 19, 8, seed=0)
    began = time.process_time()
    starts = batches.starts(np.arange(1 << 19))
    assert time.process_time() - began < 1.5
    assert len(starts) == 1 << 19


def test_the_windows_of_ten_tokens_are_those_that_starts_tells_of():
    batches = Batches(np.arange(10), batch_size=2, context_len=4, seed=3)
    assert batches.starts(np.arange(2)).tolist() == [[1, 6], [5, 6]]
    inputs, targets = batches[0]
    assert inputs.tolist() == [[7, 8, 0, 1], [2, 3, 4, 6]]
    assert targets.tolist() == [[8, 9, 1, 2], [3, 4, 5, 7]]
