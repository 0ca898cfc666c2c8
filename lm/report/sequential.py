"""Whether B is better than A, asked after each pair of runs: how to stop as soon as it is clear.

    bounds = sequential.bounds(n_pairs=6)
    found = sequential.judge([-0.02, -0.03, -0.02], bounds)     # differences B - A so far
    found.verdict                                               # "b", "a" or "" for not yet

A test that is made again after every pair finds a difference where none is far more often than it
says. Here the bounds are higher, so that all looks together err in 5 of 100 comparisons (Pocock
1977, Group sequential methods in the design and analysis of clinical trials). They are found by
drawing: differences of runs are taken to be normal, of unknown size. With eight pairs at most a
difference of one standard deviation of theirs is found in 53 of 100 comparisons, of two in 98.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lm.system import seeds

ERROR = 0.05  # the share of comparisons without a difference in which one is found
FIRST = 3  # pairs before the first look: two tell too little of how much runs differ
# Comparisons without a difference, from which the bounds are read: 100,000 in all.
N_BLOCKS = 20
N_BLOCK = 5_000


@dataclass
class Judged:
    """What the pairs so far say of B - A."""

    difference: float  # the mean
    low: float  # the interval holds the true difference in 95 of 100 comparisons, whenever
    high: float  # they stop; infinite before the first look
    verdict: str  # "a" or "b", which has the lower score; "": not decided


def bounds(n_pairs: int) -> list[float]:
    """For 1, 2, ... n_pairs pairs: the size of Student's t from which a difference is believed.

    Infinite before the first look, which is at FIRST pairs, or at n_pairs where these are fewer.
    """
    if n_pairs < 2:
        raise ValueError(f"{n_pairs} pairs: at least 2 are needed to see how much runs differ")
    first = min(FIRST, n_pairs)
    rng = np.random.default_rng(seeds.seed(0, "compare", n_pairs))
    # In blocks: the numbers between the draws and t take several times the memory of t.
    blocks = [_t_of(rng.standard_normal((N_BLOCK, n_pairs)), first) for _ in range(N_BLOCKS)]
    t = np.concatenate(blocks, axis=1)  # (looks, N_BLOCKS * N_BLOCK)
    # How rare each t is among those of its look; a comparison errs where its rarest is too rare.
    rarest = np.zeros(t.shape[1], np.int64)
    for row in t:
        in_order = np.argsort(row)
        rank = np.empty_like(in_order)  # 0: the smallest
        rank[in_order] = np.arange(len(row))
        np.maximum(rarest, rank, out=rarest)
    level = int(np.quantile(rarest, 1 - ERROR, method="higher"))
    return [math.inf] * (first - 1) + [float(np.sort(row)[level]) for row in t]


def _t_of(drawn: np.ndarray, first: int) -> np.ndarray:
    """Student's t of each comparison (B, n_pairs) after `first` pairs, and after each one more:
    (looks, B), without sign."""
    n = np.arange(1, drawn.shape[1] + 1)
    mean = drawn.cumsum(axis=1) / n
    squares = (drawn**2).cumsum(axis=1)
    looks = slice(first - 1, None)
    variance = (squares - n * mean**2)[:, looks] / (n - 1)[looks]
    return (np.abs(mean[:, looks]) / np.sqrt(variance / n[looks])).T


def judge(differences: Sequence[float], bounds: Sequence[float]) -> Judged:
    """What differences B - A, one for each pair, say by the bounds of `bounds`."""
    n = len(differences)
    values = np.asarray(differences, np.float64)
    mean = float(values.mean())
    bound = bounds[n - 1]
    if math.isinf(bound):
        return Judged(mean, -math.inf, math.inf, "")
    half = bound * float(values.std(ddof=1)) / math.sqrt(n)
    verdict = ""
    if abs(mean) > half:
        verdict = "b" if mean < 0 else "a"
    return Judged(mean, mean - half, mean + half, verdict)
