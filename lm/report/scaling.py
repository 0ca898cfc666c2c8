"""A scaling law: bits per byte as a function of a model's size N and its training tokens D.

    law = scaling.fit(n, d, bpb)         # L(N, D) = E + A / N^alpha + B / D^beta
    law.predict(1e6, 1e7)

The form is that of Hoffmann et al. 2022 (https://arxiv.org/abs/2203.15556), approach 3. Where the
arms of an experiment differ in size and in tokens, `lm.report experiment=NAME` fits it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lm.report import figures
from lm.report.folding import Arm, Ranking

EXPONENTS = np.linspace(0.05, 1.5, 30)  # tried for alpha and for beta, then refined
CELLS = 3  # of that grid, the best, each refined: the best law need not be by the best of them
HELD_OUT = "_held_out"  # ends the name of runs that the fit does not see
DRAWS = 200  # of the bootstrap
ABOUT = (
    "N: parameters less those of the embedding; D: training tokens. The law is fitted by least "
    "squares to the mean over seeds of each size and budget. 95 % interval: of {draws} bootstrap "
    "fits, each to sizes and budgets drawn again with replacement, and in them seeds drawn again. "
    "Held out: runs that no fit saw."
)


@dataclass
class Law:
    """L(N, D) = floor + a / N^alpha + b / D^beta, in bits per byte."""

    floor: float
    a: float
    b: float
    alpha: float
    beta: float

    def predict(self, n: ArrayLike, d: ArrayLike) -> np.ndarray:
        """Bits per byte at sizes n and tokens d, of their common shape."""
        n = np.asarray(n, float)
        d = np.asarray(d, float)
        return self.floor + self.a / n**self.alpha + self.b / d**self.beta


def fit(n: np.ndarray, d: np.ndarray, bpb: np.ndarray) -> Law:
    """The law with the least squared error; its constants are not negative.

    For given exponents the law is linear in the rest, so the exponents alone are searched, on a
    grid and then on finer ones around its best cells. n, d and bpb are (points,) each.
    """
    if len(np.unique(n)) < 3 or len(np.unique(d)) < 3:
        raise ValueError("a scaling law needs at least three sizes and three budgets")
    found = []
    for cell in _best_cells(n, d, bpb, EXPONENTS, EXPONENTS, CELLS):
        alphas = EXPONENTS
        betas = EXPONENTS
        for _ in range(3):
            alphas = _around(alphas, cell.i)
            betas = _around(betas, cell.j)
            (cell,) = _best_cells(n, d, bpb, alphas, betas, 1)
        found.append(cell)
    return min(found, key=lambda cell: cell.error).law


class Cell(NamedTuple):
    """A place (i, j) on a grid of exponents alpha and beta: the best law there."""

    error: float  # squared, summed over the points
    law: Law
    i: int
    j: int


def _around(exponents: np.ndarray, k: int) -> np.ndarray:
    """A finer grid between the neighbours of the exponent number k."""
    first = max(0, k - 1)
    last = min(len(exponents) - 1, k + 1)
    return np.linspace(exponents[first], exponents[last], 15)


def _best_cells(
    n: np.ndarray, d: np.ndarray, bpb: np.ndarray, alphas: np.ndarray, betas: np.ndarray, k: int
) -> list[Cell]:
    """The best k places on the grid of alphas (I,) and betas (J,)."""
    # Sizes and budgets around 1, or the powers would differ by many orders of magnitude.
    n0 = np.exp(np.log(n).mean())
    d0 = np.exp(np.log(d).mean())
    alpha, beta = np.meshgrid(alphas, betas, indexing="ij")  # (I, J)
    of_size = (n / n0) ** -alpha[..., None]  # (I, J, points)
    of_data = (d / d0) ** -beta[..., None]
    x = np.stack((np.ones_like(of_size), of_size, of_data), -1)  # (I, J, points, 3)
    xt = x.swapaxes(-1, -2)
    normal = xt @ x + 1e-9 * np.eye(3)
    w = np.linalg.solve(normal, xt @ bpb[:, None])[..., 0]  # (I, J, 3): floor, a, b
    predicted = np.einsum("ijkc,ijc->ijk", x, w)
    error = ((predicted - bpb) ** 2).sum(-1)  # (I, J)
    error[(w < 0).any(-1)] = np.inf
    n_valid = np.isfinite(error).sum()
    if not n_valid:
        raise ValueError("no law with positive constants fits: do larger models and budgets help?")
    cells = []
    for place in np.argsort(error, axis=None)[: min(k, n_valid)]:
        i, j = map(int, np.unravel_index(place, error.shape))
        floor, a, b = map(float, w[i, j])
        p = float(alpha[i, j])
        q = float(beta[i, j])
        law = Law(floor, float(a * n0**p), float(b * d0**q), p, q)
        cells.append(Cell(float(error[i, j]), law, i, j))
    return cells


def bootstrap(scores: Sequence[Sequence[float]], n: np.ndarray, d: np.ndarray) -> list[Law]:
    """Laws fitted to points drawn again with replacement, and in each point its seeds.

    `scores` has the seeds' bits per byte of each point.
    """
    random = np.random.default_rng(0)
    laws: list[Law] = []
    for _ in range(DRAWS):
        chosen = random.integers(len(scores), size=len(scores))
        means = [np.mean(random.choice(scores[i], len(scores[i]))) for i in chosen]
        try:
            laws.append(fit(n[chosen], d[chosen], np.array(means)))
        except ValueError:  # a draw of too few sizes or budgets
            continue
    return laws


# ------------------------------------------------------------------------------------ the report


def held_out(arm: Arm) -> bool:
    """Whether the fit does not see the arm."""
    return arm.runs[0].settings.get("name", "").endswith(HELD_OUT)


def is_one(arms: Sequence[Arm]) -> bool:
    """Whether the arms cross at least three sizes of one model with three budgets of tokens."""
    settings = [arm.runs[0].settings for arm in arms if not held_out(arm)]
    models = {s.get("model.name") for s in settings}
    widths = {s.get("model.n_embd") for s in settings} - {None}
    budgets = {s.get("train.tokens") for s in settings} - {None}
    return len(models) == 1 and len(widths) >= 3 and len(budgets) >= 3


def points(arms: Sequence[Arm]) -> tuple[np.ndarray, np.ndarray]:
    """The sizes N (arms,), without the embedding, and the tokens D (arms,) of the arms."""
    sizes = []
    tokens = []
    for arm in arms:
        run = arm.done[0]
        embedding = (run.vocab_size or 0) * run.settings["model.n_embd"]
        sizes.append(run.end.n_params - embedding)
        tokens.append(run.end.tokens)
    return np.array(sizes, float), np.array(tokens, float)


def block(arms: Sequence[Arm]) -> str:
    """The fitted law, its uncertainty and what it said of the runs held out, as Markdown."""
    fitted = [arm for arm in arms if not held_out(arm)]
    n, d = points(fitted)
    means = np.array([arm.mean for arm in fitted])
    law = fit(n, d, means)
    laws = bootstrap([arm.row.values for arm in fitted], n, d)
    off = np.abs(law.predict(n, d) - means)
    lines = [
        f"**L(N, D) = {law.floor:.3f} + {law.a:.3g} / N^{law.alpha:.3f} "
        f"+ {law.b:.3g} / D^{law.beta:.3f}** bits per byte; over the {len(fitted)} points it is "
        f"off by {off.mean():.4f} in the mean and {off.max():.4f} at most.",
        "",
        "| | fit | 95 % interval |",
        "|---|--:|--:|",
    ]
    for name, key in (("E, the floor", "floor"), ("alpha, of N", "alpha"), ("beta, of D", "beta")):
        between = interval([getattr(one, key) for one in laws], 3)
        lines.append(f"| {name} | {getattr(law, key):.3f} | {between} |")
    lines += ["", ABOUT.format(draws=len(laws))]
    rest = [arm for arm in arms if held_out(arm)]
    if rest:
        lines += ["", "| held out | predicted | 95 % interval | measured | +- | seeds |"]
        lines.append("|---|--:|--:|--:|--:|--:|")
    for arm in rest:
        (size,), (tokens,) = points([arm])
        predicted = law.predict(size, tokens)
        between = interval([one.predict(size, tokens) for one in laws], 4)
        spread = "" if arm.spread is None else f"{arm.spread:.4f}"
        lines.append(
            f"| N = {size:,.0f}, D = {tokens:,.0f} | {predicted:.4f} | {between} | "
            f"{arm.mean:.4f} | {spread} | {arm.n} |"
        )
    return "\n".join(lines)


def interval(values: Sequence[float | np.ndarray], digits: int) -> str:
    """The middle 95 % of the values."""
    low, high = np.percentile(np.array(values), (2.5, 97.5))
    return f"{low:.{digits}f} to {high:.{digits}f}"


def draw(rankings: Sequence[Ranking], path: Path) -> None:
    """Measured points, one colour a corpus and size, and each corpus's law through its own, over
    the tokens."""
    series = []
    for ranking in rankings:
        arms = ranking.arms
        n, d = points(arms)
        fitted = np.array([not held_out(arm) for arm in arms])
        scores = np.array([arm.mean for arm in arms])
        law = fit(n[fitted], d[fitted], scores[fitted])
        grid = np.geomspace(d.min(), d.max(), 60)
        corpus = f"{ranking.name}, " if len(rankings) > 1 else ""
        for size in np.unique(n):
            here = n == size
            label = f"{corpus}N = {size:,.0f}"
            if not fitted[here].any():
                label += ", held out"
            series.append(figures.Series(label, grid, law.predict(size, grid)))
            series.append(figures.Series(label, d[here], scores[here], dots=True))
    figures.chart(series, path, "training tokens D", "val/bpb")
