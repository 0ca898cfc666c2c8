"""Bad numbers are counted, spikes stand out, and nothing that is not finite hides either."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.config import TrainConfig
from lm.record import guard
from lm.record.state import TrainState
from lm.system.errors import NonFiniteError


def judged(losses, **settings):
    """The rows of a run with these losses, a gradient norm of 1, and its last state."""
    state, cfg, found = TrainState(), TrainConfig(**settings), []
    for loss in losses:
        found.append(guard.judge(state, state.step, loss, 1.0, cfg))
        state.step += 1
    return found, state


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_step_without_a_finite_number_is_counted_and_enters_no_window(bad):
    found, state = judged([3.0, bad, 2.0])
    assert found == [{}, {"train/skipped": 1}, {}]
    assert (state.losses, state.recent, state.bad_in_a_row) == ([3.0, 2.0], [3.0, 2.0], 0)


def test_too_many_in_a_row_are_an_error_that_names_the_step():
    with pytest.raises(NonFiniteError, match=r"step 5: the loss is nan .* the 3\. such step"):
        judged([1.0, math.nan, 1.0, *[math.nan] * 3], skip=2)


def test_a_loss_far_above_the_others_is_flagged_and_one_that_falls_is_not():
    found, _ = judged([3 + 0.01 * (i % 5) for i in range(40)] + [9.0, 3.0, 0.5])
    assert [row for row in found if row] == [{"train/spike": 9.0}]


def test_a_nan_among_many_losses_does_not_blind_the_detector():
    found, _ = judged([3.0] * 30 + [math.nan, 6.0])
    assert found[-1] == {"train/spike": 6.0}


def test_the_window_has_the_length_that_was_asked_for():
    _, state = judged(range(50), spike_window=20)
    assert state.recent == list(range(30, 50))


@given(st.lists(st.floats(0, 50), min_size=20, max_size=40), st.floats(0, 50))
def test_the_height_of_a_spike_is_finite_and_grows_with_the_loss(recent, loss):
    assert math.isfinite(guard.spike(recent, loss))
    assert guard.spike(recent, loss) <= guard.spike(recent, loss + 1)


def test_a_deviation_is_the_standard_deviation_of_normally_distributed_losses():
    """The change that left out the factor 1.4826 was noticed by no test."""
    recent = statistics.NormalDist(3.0, 0.5).samples(4001, seed=0)
    assert guard.spike(recent, 3.0 + 8 * 0.5) == pytest.approx(8.0, rel=0.05)


def test_every_skipped_step_of_a_run_is_counted():
    found, _ = judged([1.0, math.nan, 1.0, math.nan])
    assert found[1] == {"train/skipped": 1} and found[3] == {"train/skipped": 2}


def test_twenty_losses_are_enough_to_stand_out_among_and_fewer_are_not():
    assert guard.spike([3.0] * (guard.MIN_LOSSES - 1), 9.0) == 0.0
    assert guard.spike([3.0] * guard.MIN_LOSSES, 9.0) > 100


def test_in_a_run_that_hardly_moves_a_deviation_is_a_hundredth_of_the_loss():
    """Or every step of a settled run would be a spike."""
    settled = [3.0 + 1e-6 * (i % 3) for i in range(30)]
    assert guard.spike(settled, 3.3) == pytest.approx(10.0, rel=1e-3)


def test_only_what_is_higher_than_the_limit_is_flagged():
    losses = [3 + 0.01 * (i % 5) for i in range(40)]
    height = guard.spike(losses, 9.0)
    assert not any(judged([*losses, 9.0], spike=height)[0])
    assert any(judged([*losses, 9.0], spike=0.99 * height)[0])
