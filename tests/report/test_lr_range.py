"""The range test finds the rate at which made-up losses fall fastest."""

import numpy as np
import pytest

from lm.report import lr_range


@pytest.mark.parametrize("steepest", [-2.5, -1.0])
def test_the_suggested_rate_is_where_the_loss_falls_fastest(steepest):
    place = np.linspace(-4, 0, 150)
    noise = np.random.default_rng(0).normal(0, 0.05, 150)
    losses = 4 - 2 * np.tanh((place - steepest) / 0.4) + noise
    assert np.log10(lr_range.suggested(10**place, losses)) == pytest.approx(steepest, abs=0.15)


def test_a_range_too_short_to_read_says_so():
    with pytest.raises(ValueError, match=r"lower schedule\.first"):
        lr_range.suggested(np.geomspace(0.5, 1, 20), np.ones(20))
