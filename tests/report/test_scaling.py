"""The scaling law finds again what made-up runs were made with."""

import numpy as np
import pytest

from lm.report import scaling

SIZES = np.array([2.5e4, 5e4, 1e5, 2e5, 4e5])
TOKENS = np.array([2e5, 4e5, 8e5])
TRUTH = scaling.Law(0.9, 300.0, 900.0, 0.55, 0.50)
N, D = (v.ravel() for v in np.meshgrid(SIZES, TOKENS))


def test_the_fit_finds_the_law_that_made_the_points():
    law = scaling.fit(N, D, TRUTH.predict(N, D))
    assert law.predict(N, D) == pytest.approx(TRUTH.predict(N, D), abs=1e-4)
    assert (law.alpha, law.beta, law.floor) == pytest.approx((0.55, 0.50, 0.9), abs=0.02)
    assert law.predict(1e6, 3e6) == pytest.approx(TRUTH.predict(1e6, 3e6), abs=2e-3)


def test_the_best_law_is_found_where_the_best_cell_of_the_grid_does_not_lead_to_it():
    """From the best cell alone the squared error of these points ended at 0.00056."""
    bpb = [10.241, 6.262, 4.143, 3.032, 9.481, 5.495, 3.383, 2.283, 9.048, 5.053, 2.948, 1.836]
    n, d = (v.ravel() for v in np.meshgrid(SIZES[:4], TOKENS))
    assert ((scaling.fit(n, d, np.array(bpb)).predict(n, d) - bpb) ** 2).sum() < 0.00022


def test_the_interval_holds_the_truth_about_as_often_as_it_says(monkeypatch):
    """Eight made-up experiments: three misses or more have a chance of 0.6 % at 95 %."""
    monkeypatch.setattr(scaling, "DRAWS", 30)
    draws, inside = np.random.default_rng(1), 0
    for _ in range(8):
        scores = TRUTH.predict(N, D)[:, None] + draws.normal(0, 0.01, (len(N), 3))
        laws = scaling.bootstrap(scores, N, D)
        low, high = np.percentile([law.predict(8e5, 1.6e6) for law in laws], (2.5, 97.5))
        inside += low <= TRUTH.predict(8e5, 1.6e6) <= high
    assert inside >= 6


def test_too_few_sizes_are_refused():
    with pytest.raises(ValueError, match="at least three sizes"):
        scaling.fit(N[:3], D[:3], TRUTH.predict(N, D)[:3])


def test_points_that_no_law_fits_are_refused():
    """Larger models that do worse, and more tokens that do worse."""
    with pytest.raises(ValueError, match="no law with positive constants"):
        scaling.fit(N, D, 1 + N**0.1 + D**0.1)
