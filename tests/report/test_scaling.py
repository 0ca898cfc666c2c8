"""The scaling law finds again what made-up runs were made with."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lm.report import scaling
from lm.report.folding import Arm, Ranking

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


@pytest.mark.parametrize(("n_sizes", "n_budgets"), [(2, 3), (5, 2)])
def test_too_few_sizes_or_budgets_are_refused(n_sizes, n_budgets):
    n, d = (v.ravel() for v in np.meshgrid(SIZES[:n_sizes], TOKENS[:n_budgets]))
    with pytest.raises(ValueError, match="at least three sizes and three budgets"):
        scaling.fit(n, d, TRUTH.predict(n, d))


def test_three_sizes_and_three_budgets_are_enough():
    n, d = (v.ravel() for v in np.meshgrid(SIZES[:3], TOKENS))
    law = scaling.fit(n, d, TRUTH.predict(n, d))
    assert law.predict(n, d) == pytest.approx(TRUTH.predict(n, d), abs=1e-4)


def test_a_finer_grid_lies_between_the_neighbours_of_an_exponent():
    exponents = np.linspace(0, 1, 11)
    for k, first, last in ((5, 0.4, 0.6), (1, 0.0, 0.2), (0, 0.0, 0.1), (9, 0.8, 1), (10, 0.9, 1)):
        assert scaling._around(exponents, k) == pytest.approx(np.linspace(first, last, 15))


def test_the_best_cells_are_those_of_least_squares_one_by_one():
    """And those with a negative constant are none."""
    alphas, betas = np.array([0.3, 0.55, 0.9, 1.4]), np.array([0.2, 0.5, 1.1])
    bpb = TRUTH.predict(N, D) + np.random.default_rng(2).normal(0, 0.02, len(N))
    expected = []
    for (i, alpha), (j, beta) in itertools.product(enumerate(alphas), enumerate(betas)):
        x = np.stack((np.ones(len(N)), N**-alpha, D**-beta), 1)
        scale = x.max(0)
        w = np.linalg.lstsq(x / scale, bpb)[0] / scale
        if (w >= 0).all():
            expected.append((((x @ w - bpb) ** 2).sum(), *w, alpha, beta, i, j))
    expected.sort()
    assert 3 < len(expected) < 12
    for k, n_found in ((3, 3), (100, len(expected))):
        found = [
            (c.error, c.law.floor, c.law.a, c.law.b, c.law.alpha, c.law.beta, c.i, c.j)
            for c in scaling._best_cells(N, D, bpb, alphas, betas, k)
        ]
        assert len(found) == n_found
        assert np.array(found) == pytest.approx(np.array(expected[:k]), rel=1e-5)


def test_points_that_no_law_fits_are_refused():
    """Larger models that do worse, and more tokens that do worse."""
    with pytest.raises(ValueError, match="no law with positive constants"):
        scaling.fit(N, D, 1 + N**0.1 + D**0.1)


def test_a_draw_of_the_bootstrap_takes_points_and_in_each_its_seeds(monkeypatch):
    """And one to which no law fits is left out."""
    scores = [[100.0 * i, 100.0 * i + 3, 100.0 * i + 9] for i in range(5)]
    n, d = np.arange(5) + 10.0, np.arange(5) + 20.0
    drawn = []

    def fit(n, d, means):
        drawn.append((n, d, means))
        if len(drawn) in (1, 3):
            raise ValueError("too few sizes")
        return len(drawn)

    monkeypatch.setattr(scaling, "fit", fit)
    monkeypatch.setattr(scaling, "DRAWS", 50)
    assert scaling.bootstrap(scores, n, d) == [2, *range(4, 51)]
    seen = set()
    for sizes, budgets, means in drawn:
        assert len(means) == 5
        assert (sizes - 10 == budgets - 20).all()
        points = np.floor(means / 100)
        assert (points == sizes - 10).all()
        seen |= set(np.round(3 * (means - 100 * points)).tolist())
    # Three of the seeds 0, 3 and 9, with replacement.
    assert seen == {a + b + c for a in (0, 3, 9) for b in (0, 3, 9) for c in (0, 3, 9)}
    assert len({tuple(sizes) for sizes, _, _ in drawn}) > 40
    first = drawn.copy()
    drawn.clear()
    scaling.bootstrap(scores, n, d)
    assert all(np.array_equal(a, b) for a, b in zip(first, drawn, strict=True))


def arm(width: int, tokens: int, scores=(2.0,), model="transformer", vocab_size=10, **settings):
    """An arm of a model with 24 width^2 parameters besides its embedding."""
    settings |= {"model.name": model, "model.n_embd": width, "train.tokens": tokens}
    end = SimpleNamespace(n_params=24 * width**2 + (vocab_size or 0) * width, tokens=tokens + 1)
    runs = [
        SimpleNamespace(
            path=Path("run"),
            settings=settings,
            vocab_size=vocab_size,
            end=end,
            status="done",
            score=score,
            seed=seed,
        )
        for seed, score in enumerate(scores)
    ]
    return Arm("an arm", runs)


def test_a_run_is_held_out_by_the_end_of_its_name():
    assert scaling.held_out(arm(8, 1, name="900_x_held_out"))
    assert not scaling.held_out(arm(8, 1, name="held_out_900_x"))
    assert not scaling.held_out(arm(8, 1))


def test_three_sizes_of_one_model_crossed_with_three_budgets_make_a_law():
    sizes = [arm(width, tokens) for width, tokens in ((8, 1), (16, 2), (32, 3))]
    assert scaling.is_one(sizes)
    assert not scaling.is_one([*sizes[:2], arm(16, 3)])  # two sizes
    assert not scaling.is_one([*sizes[:2], arm(32, 2)])  # two budgets
    assert not scaling.is_one([*sizes, arm(32, 3, model="gru")])
    assert scaling.is_one([*sizes, arm(32, 3, model="gru", name="x_held_out")])
    assert not scaling.is_one([*sizes[:2], arm(32, 3, name="x_held_out")])
    for key in ("model.n_embd", "train.tokens"):  # one that does not say it is no third
        lacking = arm(32, 3)
        del lacking.runs[0].settings[key]
        assert not scaling.is_one([*sizes[:2], lacking])


def test_the_size_of_a_model_leaves_its_embedding_out():
    n, d = scaling.points([arm(8, 99), arm(16, 199), arm(16, 299, vocab_size=None)])
    assert n.tolist() == [24 * 8**2, 24 * 16**2, 24 * 16**2] and d.tolist() == [100, 200, 300]
    assert n.dtype == d.dtype == float


LAW = scaling.Law(0.5, 10.0, 100.0, 0.5, 1.0)  # 0.5 + 10 / sqrt(N) + 100 / D
HELD = {"name": "900_x_held_out"}


def test_a_law_is_told_with_its_interval_and_what_it_said_of_runs_held_out(monkeypatch):
    asked = []

    def fit(*points):
        asked.append([list(one) for one in points])
        return LAW

    def bootstrap(scores, *points):
        asked.append([scores, *(list(one) for one in points)])
        # 2.5 % of 41 values lie below the second, 97.5 % below the last but one.
        return [scaling.Law(i, 10.0 * i, 0.0, i / 10, i / 100) for i in range(41)]

    monkeypatch.setattr(scaling, "fit", fit)
    monkeypatch.setattr(scaling, "bootstrap", bootstrap)
    # The law says 0.5 + 0.5 + 0.5 of N = 400 and D = 200, which were 1.0 in the mean, and
    # 0.5 + 1.0 + 0.5 of N = 100, which was 2.1.
    near, far = (400, 199, (0.9, 1.1)), (100, 199, (2.1,))
    arms = [sized(n, tokens, scores, name="900_x") for n, tokens, scores in (near, far)]
    arms += [sized(1, 9_999, (10.5, 10.7), **HELD), sized(2_500, 99_999, (1.0,), **HELD)]
    lines = scaling.block(arms).splitlines()
    data = [[400, 100], [200, 200]]
    assert asked == [[*data, [1.0, 2.1]], [[[0.9, 1.1], [2.1]], *data]]
    assert lines[:8] == [
        "**L(N, D) = 0.500 + 10 / N^0.500 + 100 / D^1.000** bits per byte; over the 2 points it is "
        "off by 0.3000 in the mean and 0.5000 at most.",
        "",
        "| | fit | 95 % interval |",
        "|---|--:|--:|",
        "| E, the floor | 0.500 | 1.000 to 39.000 |",
        "| alpha, of N | 0.500 | 0.100 to 3.900 |",
        "| beta, of D | 1.000 | 0.010 to 0.390 |",
        "",
    ]
    assert lines[8] == scaling.ABOUT.format(draws=41)
    # The draws say 11 i of N = 1; of N = 2,500 the second lowest is 1 + 10 / 2500^0.1.
    assert lines[9:] == [
        "",
        "| held out | predicted | 95 % interval | measured | +- | seeds |",
        "|---|--:|--:|--:|--:|--:|",
        "| N = 1, D = 10,000 | 10.5100 | 11.0000 to 429.0000 | 10.6000 | 0.1414 | 2 |",
        "| N = 2,500, D = 100,000 | 0.7010 | 5.5731 to 39.0000 | 1.0000 |  | 1 |",
    ]
    assert "held out |" not in scaling.block(arms[:2])


def sized(n: int, tokens: int, scores, **settings) -> Arm:
    """An arm of n parameters besides the embedding."""
    made = arm(8, tokens, scores, **settings)
    made.runs[0].end.n_params = n + 80
    return made


def test_each_size_is_drawn_by_its_points_and_the_law_of_its_text(monkeypatch):
    drawn = []
    monkeypatch.setattr(scaling.figures, "chart", lambda *words: drawn.append(words))
    laws = {}

    def fit(n, d, scores):
        laws[scores[0]] = (n.tolist(), d.tolist(), scores.tolist())
        return scaling.Law(scores[0], 1.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(scaling, "fit", fit)

    def ranking(name: str, score: float) -> Ranking:
        arms = [
            sized(2_000, 99, [score], name="x"),
            sized(1_000, 9_999, [score + 1, score + 3], name="x"),
            sized(1_000, 99, [score + 4], name="x"),
            sized(3_000, 999, [score + 5], **HELD),
        ]
        arms[0].runs[0].corpus_name = name
        return Ranking(arms)

    scaling.draw([ranking("one", 1.0)], Path("law.svg"))
    ((series, *rest),) = drawn
    assert rest == [Path("law.svg"), "training tokens D", "val/bpb"]
    assert laws == {1.0: ([2_000, 1_000, 1_000], [100, 10_000, 100], [1.0, 3.0, 5.0])}
    sizes = [1_000, 2_000, 3_000]
    labels = ["N = 1,000", "N = 2,000", "N = 3,000, held out"]
    assert [one.label for one in series] == [label for label in labels for _ in range(2)]
    assert [one.dots for one in series] == [False, True] * 3
    grid = np.geomspace(100, 10_000, 60)
    for size, line in zip(sizes, series[::2], strict=True):
        assert np.array_equal(line.x, grid)
        assert line.y == pytest.approx(1.0 + 1 / size + 1 / grid)
    dots = [(one.x.tolist(), one.y.tolist()) for one in series[1::2]]
    assert dots == [([10_000, 100], [3.0, 5.0]), ([100], [1.0]), ([1_000], [6.0])]
    scaling.draw([ranking("one", 1.0), ranking("two", 2.0)], Path("law.svg"))
    labels = [one.label for one in drawn[1][0]]
    assert labels[1] == "one, N = 1,000" and labels[-1] == "two, N = 3,000, held out"
    assert drawn[1][0][6].y == pytest.approx(2.0 + 1 / 1_000 + 1 / grid)
