"""A comparison that is looked at after every pair keeps its word."""

import math
import tracemalloc

import numpy as np
import pytest

from lm.report import sequential


def verdicts(n_pairs: int, shift: float, n: int = 8000) -> tuple[float, float]:
    """The share of n simulated comparisons that find a difference, and the mean pairs they take."""
    bounds = sequential.bounds(n_pairs)
    rng = np.random.default_rng(7)
    found = taken = 0
    for row in rng.normal(shift, 1.0, (n, n_pairs)):
        for k in range(1, n_pairs + 1):
            if sequential.judge(row[:k], bounds).verdict:
                found += 1
                break
        taken += k
    return found / n, taken / n


@pytest.mark.parametrize("n_pairs", [2, 3, 6, 12])
def test_without_a_difference_one_is_found_in_five_of_a_hundred(n_pairs):
    assert verdicts(n_pairs, 0.0)[0] == pytest.approx(0.05, abs=0.01)


def test_a_single_look_has_the_bound_of_students_t():
    assert sequential.bounds(2)[1] == pytest.approx(12.706, rel=0.05)  # one degree of freedom
    assert sequential.bounds(3)[2] == pytest.approx(4.303, rel=0.02)  # two


def test_a_clear_difference_is_found_and_early():
    """Of one and of two standard deviations of the differences, as the module says."""
    power, _ = verdicts(8, 1.0, 2000)
    assert power == pytest.approx(0.53, abs=0.04)
    power, pairs = verdicts(8, 2.0, 2000)
    assert power == pytest.approx(0.98, abs=0.015) and pairs < 5.5


def test_every_look_has_the_t_of_its_pairs():
    drawn = np.array([[1.0, -2.0, 4.0, 3.0, 5.0], [-2.0, -1.0, -1.5, 0.0, -3.0]])
    found = sequential._t_of(drawn, first=3)
    expected = []
    for n in (3, 4, 5):
        rows = drawn[:, :n]
        expected.append(abs(rows.mean(1)) / (rows.std(1, ddof=1) / n**0.5))
    assert found == pytest.approx(np.array(expected))


def test_the_bounds_are_those_at_which_one_comparison_in_twenty_errs(monkeypatch):
    """Of 20 comparisons with two looks each, worked out here by sorting and counting."""
    t = np.random.default_rng(3).random((2, 20))
    monkeypatch.setattr(sequential, "_t_of", lambda drawn, first: t)
    monkeypatch.setattr(sequential, "N_BLOCKS", 1)
    first, second, low, high = sequential.bounds(4)
    assert first == second == math.inf
    ranks = [int((low > t[0]).sum()), int((high > t[1]).sum())]
    assert low in t[0] and high in t[1] and ranks[0] == ranks[1]  # equally rare at both looks
    errs = (t[0] > low) | (t[1] > high)
    assert errs.sum() <= 1
    lower = [np.sort(row)[ranks[0] - 1] for row in t]
    assert ((t[0] > lower[0]) | (t[1] > lower[1])).sum() > 1


def test_the_same_number_of_pairs_has_the_same_bounds():
    assert sequential.bounds(3) == sequential.bounds(3)


def test_the_interval_is_the_mean_and_the_bound_times_its_standard_error():
    found = sequential.judge([-1.0, -2.0, -3.0], [math.inf, math.inf, 4.0])  # 4 / sqrt(3) each side
    half = 4 / 3**0.5
    assert (found.difference, found.verdict) == (-2.0, "")
    assert (found.low, found.high) == pytest.approx((-2.0 - half, -2.0 + half))
    early = sequential.judge([-1.0, -2.0], [math.inf, math.inf, 4.0])
    assert early == sequential.Judged(-1.5, -math.inf, math.inf, "")


def test_the_interval_and_who_is_better():
    bounds = sequential.bounds(4)
    assert sequential.judge([-0.02], bounds).verdict == ""
    assert sequential.judge([-0.02], bounds).high == math.inf
    better = sequential.judge([-0.020, -0.021, -0.019], bounds)
    assert better.verdict == "b" and better.low < better.difference < better.high < 0
    worse = sequential.judge([0.020, 0.021, 0.019], bounds)
    assert worse.verdict == "a" and worse.low > 0
    assert sequential.judge([0.02, -0.02, 0.01, 0.0], bounds).verdict == ""


def test_the_same_scores_are_no_difference():
    assert sequential.judge([0.0, 0.0, 0.0], sequential.bounds(4)).verdict == ""


def test_one_pair_cannot_decide():
    with pytest.raises(ValueError, match="1 pairs: at least 2 are needed"):
        sequential.bounds(1)


def test_the_bounds_of_many_pairs_take_little_memory():
    """64 pairs took 400 MB; the draws behind the bounds are made in blocks."""
    tracemalloc.start()
    try:
        sequential.bounds(16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 45e6  # in one piece 88 MB
