"""How far an arm must be behind the best one before its distance is believed.

    half = best.half_width(gaps, n_arms)    # of the interval around the mean of the gaps

The best arm is chosen by the same scores: of many that are equal, the luckiest seems better than
the unluckiest far more often than Student's t says (Hsu 1996, Multiple comparisons). These bounds
are higher, so that in 95 of 100 rankings without a difference no interval leaves zero out.

How often a difference is found: experiments/benchmarks/ranking.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np

from lm.report.paired import t95
from lm.sweep.ranking import mean_and_spread
from lm.system import seeds

ERROR = 0.05  # the share of rankings without a difference in which some interval leaves zero out
N_DRAWN = 20_000  # rankings without a difference, from which a bound is read
MAX_VALUES = 20_000_000  # drawn for one bound; of more arms fewer rankings are drawn


def half_width(gaps: Sequence[float], n_arms: int) -> float | None:
    """Half the 95 % interval of the mean of `gaps`, the differences to the best of `n_arms` arms,
    seed by seed; None for fewer than two gaps.
    """
    spread = mean_and_spread(gaps)[1]
    if spread is None:
        return None
    return bound(n_arms, len(gaps)) * spread / math.sqrt(len(gaps))


@functools.cache
def bound(n_arms: int, n_seeds: int) -> float:
    """The size of Student's t from which a difference to the best of `n_arms` arms is believed."""
    if n_arms <= 2:  # which of two is chosen does not matter
        return t95(n_seeds - 1)
    rng = np.random.default_rng(seeds.seed(0, f"best of {n_arms}", n_seeds))
    left = max(1000, min(N_DRAWN, MAX_VALUES // (n_arms * n_seeds)))
    found = []
    while left > 0:
        n = min(left, max(1, 1_000_000 // (n_arms * n_seeds)))
        found.append(largest(rng.standard_normal((n, n_arms, n_seeds))))
        left -= n
    return float(np.quantile(np.concatenate(found), 1 - ERROR))


def largest(scores: np.ndarray) -> np.ndarray:
    """The largest t of a difference to the best arm in each ranking: scores (N, arms, seeds) give
    (N,). The best arm has the lowest mean.
    """
    n_seeds = scores.shape[2]
    first = scores.mean(axis=2).argmin(axis=1)
    gaps = scores - scores[np.arange(len(scores)), first][:, None]  # (N, arms, seeds)
    spread = gaps.std(axis=2, ddof=1)
    spread[np.arange(len(scores)), first] = 1.0  # the best arm's own gaps are all 0
    return (gaps.mean(axis=2) / spread * math.sqrt(n_seeds)).max(axis=1)


def power(n_arms: int, n_seeds: int, shift: float = 1.0, n: int = 20_000) -> float:
    """The share of `n` drawn rankings in which some arm is shown to be behind the best, where one
    arm is better than all others by `shift` standard deviations over seeds.
    """
    rng = np.random.default_rng(seeds.seed(1, f"best of {n_arms}", n_seeds))
    scores = rng.standard_normal((n, n_arms, n_seeds))
    scores[:, 0] -= shift
    return float((largest(scores) > bound(n_arms, n_seeds)).mean())
