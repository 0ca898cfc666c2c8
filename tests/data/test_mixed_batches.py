"""Rows of a batch come from several sources: by their weights, and each target of each in turn."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lm.data import mixed_batches
from lm.data.batches import Batches
from lm.data.mixed_batches import MixedBatches

NAMES = "abcdefgh"


def mixed(lengths, weights, size=4, context=5, seed=0, **ranks):
    """Batches of a text that counts upwards, so that an id tells its place."""
    return MixedBatches(
        np.arange(sum(lengths)),
        dict(zip(NAMES, lengths, strict=False)),
        dict(zip(NAMES, weights, strict=False)),
        size,
        context,
        seed,
        **ranks,
    )


def source_of(batch, lengths):
    """The number of the source of each row, (B,)."""
    x, y = batch
    ends = np.cumsum(lengths)
    found = np.searchsorted(ends, x[:, 0].numpy(), side="right")
    assert np.array_equal(np.searchsorted(ends, y[:, -1].numpy(), side="right"), found)
    return found


def slow_order(weights, n):
    """The source of each of n rows, one after the other: an oracle in exact numbers.

    A source takes a row as soon as its share of those that earlier ones left, rounded, is larger.
    """
    order = []
    taken = [0] * len(weights)
    for row in range(n):
        left = row + 1
        for i, weight in enumerate(weights):
            share = round(weight / sum(weights[i:]) * 2**40)
            own = (left * share * 2 + 2**40) // 2**41
            if own > taken[i]:
                taken[i] = own
                order.append((i, own - 1))
                break
            left -= own
    return order


weights_of = st.lists(st.integers(1, 1000), min_size=1, max_size=6).map(
    lambda parts: [part / sum(parts) for part in parts]
)


@settings(max_examples=15, deadline=None)
@given(weights=weights_of, size=st.integers(20, 30), first=st.integers(0, 1 << 40))
@example(weights=[0.5, 0.25, 0.25], size=20, first=1 << 40)
def test_every_stretch_of_rows_holds_each_source_by_its_weight(weights, size, first):
    lengths = [200] * len(weights)
    batches = mixed(lengths, weights, size)
    rows = np.concatenate([source_of(batches[step], lengths) for step in range(first, first + 40)])
    found = np.bincount(rows, minlength=len(weights))
    # Off by at most one at both ends, and a little more where many sources come before.
    assert np.abs(found - np.array(weights) * len(rows)).max() <= (2 if len(weights) < 4 else 4)


@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("weights", [[0.7, 0.3], [0.01, 0.99], [0.2, 0.5, 0.3], [0.0, 1.0]])
def test_weights_hold_within_a_thousandth_after_1000_steps(weights, size):
    lengths = [300, 40, 90][: len(weights)]
    batches = mixed(lengths, weights, size)
    n_rows = np.zeros(len(weights))
    for step in range(1050):
        rows = source_of(batches[step], lengths)
        n_rows += np.bincount(rows, minlength=len(weights))
        if step >= 1000:
            assert np.abs(n_rows / n_rows.sum() - weights).max() < 0.001


@settings(max_examples=12, deadline=None)
@given(data=st.data(), weights=weights_of, size=st.integers(1, 7), context=st.integers(2, 12))
def test_each_source_gives_its_own_batches_row_by_row(data, weights, size, context):
    """So each target is drawn over the epochs as often as every other of its source, to within
    one: tests/data/test_batches.py shows it of `Batches`."""
    lengths = [data.draw(st.integers(context + 1, 9 * context)) for _ in weights]
    seed = data.draw(st.integers(0, 3))
    block = data.draw(st.sampled_from([8, 64, mixed_batches.BLOCK]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mixed_batches, "BLOCK", block)
        batches = mixed(lengths, weights, size, context, seed)
        n_steps = 30
        rows = [row for step in range(n_steps) for row in zip(*batches[step], strict=True)]
    starts = np.cumsum([0, *lengths])
    alone = [
        Batches(np.arange(begin, begin + n), 1, context, seed)
        for begin, n in zip(starts, lengths, strict=False)
    ]
    order = slow_order(weights, n_steps * size)
    for (source, visit), (x, y) in zip(order, rows, strict=True):
        own_x, own_y = alone[source][visit]
        assert torch.equal(x, own_x[0]) and torch.equal(y, own_y[0])
    for source, (begin, n) in enumerate(zip(starts, lengths, strict=False)):
        own = [y for (i, _), (_, y) in zip(order, rows, strict=True) if i == source]
        n_epochs = len(own) // alone[source].n_windows
        whole = own[: n_epochs * alone[source].n_windows]
        if whole:
            counts = np.bincount(torch.cat(whole).numpy() - begin, minlength=n)[1:]
            assert counts.max() - counts.min() <= 1


def test_a_batch_is_the_same_in_any_order_after_a_restart_and_in_a_worker():
    settings = ([900, 130, 70], [0.5, 0.3, 0.2], 7, 8, 3)
    forwards = mixed(*settings)
    steps = range(0, 2000, 37)  # over several blocks
    seen = {step: mixed(*settings)[step] for step in steps[:5]}
    backwards = mixed(*settings)
    seen |= {step: backwards[step] for step in reversed(steps)}
    loader = DataLoader(mixed(*settings), batch_size=None, sampler=steps, num_workers=1)
    for step, (x, y) in zip(steps, loader, strict=True):
        assert torch.equal(forwards[step][0], seen[step][0])
        assert torch.equal(forwards[step][1], seen[step][1])
        assert torch.equal(x, seen[step][0]) and torch.equal(y, seen[step][1])
        assert x.is_contiguous() and x.dtype == torch.int64
    other = mixed(*settings[:-1], seed=4)
    assert not any(torch.equal(other[step][0], seen[step][0]) for step in steps)


def test_processes_share_the_rows_of_one_batch():
    settings = ([900, 130], [0.6, 0.4], 6, 8, 3)
    whole = mixed(*settings)
    for n_proc in (2, 3):
        parts = [mixed(*settings, rank=rank, n_proc=n_proc) for rank in range(n_proc)]
        for step in (0, 5, 683, 700):
            assert torch.equal(torch.cat([part[step][0] for part in parts]), whole[step][0])
            assert torch.equal(torch.cat([part[step][1] for part in parts]), whole[step][1])
            assert len({len(part[step][0]) for part in parts}) == 1


def test_batches_cut_from_ids_on_the_device_are_the_same():
    here, there = (mixed([900, 37], [0.6, 0.4]) for _ in range(2))
    there.resident_ids = torch.from_numpy(there.ids.astype(np.int32))  # what `to` does for a GPU
    for step in range(60):
        assert torch.equal(here[step][0], there[step][0])
        assert torch.equal(here[step][1], there[step][1])


def test_one_source_of_weight_1_gives_the_batches_of_that_corpus():
    batches = mixed([500], [1.0], 4, 5, seed=2)
    alone = Batches(np.arange(500), 4, 5, seed=2)
    assert len(batches) == len(alone)
    assert all(torch.equal(batches[s][1], alone[s][1]) for s in range(100))


def test_a_source_shorter_than_a_window_is_named_unless_nothing_is_drawn_from_it():
    with pytest.raises(ValueError, match=r"^corpus.parts.b: .* has 5 tokens, .* needs 6: lower"):
        mixed([100, 5], [0.5, 0.5])
    assert source_of(mixed([100, 5], [1.0, 0.0])[3], [100, 5]).max() == 0


def test_the_epochs_of_each_source_are_those_it_was_gone_through():
    batches = mixed([101, 21], [0.5, 0.5], size=4, context=5)
    assert batches.epochs(10) == {"a": 1.0, "b": 5.0}
    assert batches.n_windows == 24
    with pytest.raises(IndexError, match="negative"):
        batches[-1]
