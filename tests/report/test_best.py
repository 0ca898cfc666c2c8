"""Of arms without a difference none is shown to be behind the best, but for 5 rankings in 100."""

import numpy as np
import pytest

from lm.report import best, effects


@pytest.mark.parametrize(("n_arms", "n_seeds"), [(2, 3), (3, 2), (4, 5), (12, 3)])
def test_without_a_difference_five_rankings_in_a_hundred_show_one(n_arms, n_seeds):
    """By Student's t it was 19 in 100 with four arms of five seeds, 60 with twelve of three."""
    rng = np.random.default_rng(11)
    scores = rng.standard_normal((20_000, n_arms, n_seeds)) + rng.standard_normal((20_000, 1, 1))
    share = (best.largest(scores) > best.bound(n_arms, n_seeds)).mean()
    assert share == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("n_values", [2, 3])
def test_without_an_effect_five_settings_in_a_hundred_show_one(n_values):
    """A setting of two or three values, crossed with another of two, of which one is far better;
    three seeds that are easier or harder for all."""
    rng = np.random.default_rng(12)
    n = 2000
    found = 0
    for drawn in rng.standard_normal((n, n_values, 2, 3)) + rng.standard_normal((n, 1, 1, 3)):
        values = [
            {(("b", str(place)),): {s: x + 5.0 * place for s, x in enumerate(row)}
             for place, row in enumerate(of_value)}
            for of_value in drawn.tolist()
        ]  # fmt: skip
        first = int(drawn.mean(axis=(1, 2)).argmin())
        for i, scores in enumerate(values):
            gaps = effects.gaps_by_seed(scores, values[first])
            half = best.half_width(gaps, n_values)
            if i != first and np.mean(gaps) > half:
                found += 1
                break
    assert found / n == pytest.approx(0.05, abs=0.015)


def test_more_seeds_find_a_difference_of_one_deviation_more_often():
    shares = [best.power(2, n_seeds, n=4000) for n_seeds in (3, 5, 10)]
    assert shares == sorted(shares) and shares[0] < 0.2 and shares[2] > 0.45


def test_two_gaps_are_needed_for_an_interval():
    assert best.half_width([1.0], 3) is None and best.half_width([], 3) is None
