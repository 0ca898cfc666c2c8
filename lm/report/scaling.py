"""A scaling law: bits per byte as a function of a model's size N and its training tokens D.

    law = scaling.fit(n, d, bpb)         # L(N, D) = E + A / N^alpha + B / D^beta
    law.predict(1e6, 1e7)

The form is that of Hoffmann et al. 2022 (https://arxiv.org/abs/2203.15556), approach 3. Where the
arms of an experiment differ in size and in tokens, `lm.report experiment=NAME` fits it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm.report import figures
from lm.report.records import Arm

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

    def predict(self, n: np.ndarray | float, d: np.ndarray | float) -> np.ndarray | float:
        return self.floor + self.a / n**self.alpha + self.b / d**self.beta


def fit(n: np.ndarray, d: np.ndarray, bpb: np.ndarray) -> Law:
    """The law with the least squared error; its constants are not negative.

    For given exponents the law is linear in the rest, so the exponents alone are searched, on a
    grid and then on finer ones around its best cells. n, d and bpb are (points,) each.
    """
    if len(np.unique(n)) < 3 or len(np.unique(d)) < 3:
        raise ValueError("a scaling law needs at least three sizes and three budgets")
    found = []
    for best in _best(n, d, bpb, EXPONENTS, EXPONENTS, CELLS):
        alphas = betas = EXPONENTS
        for _ in range(3):
            alphas, betas = _around(alphas, best[2]), _around(betas, best[3])
            (best,) = _best(n, d, bpb, alphas, betas, 1)
        found.append(best)
    return min(found, key=lambda best: best[0])[1]


def _around(exponents: np.ndarray, k: int) -> np.ndarray:
    return np.linspace(exponents[max(0, k - 1)], exponents[min(len(exponents) - 1, k + 1)], 15)


def _best(
    n: np.ndarray, d: np.ndarray, bpb: np.ndarray, alphas: np.ndarray, betas: np.ndarray, k: int
) -> list[tuple[float, Law, int, int]]:
    """The best k laws on a grid of exponents: the squared error, the law, its place on the grid."""
    # Sizes and budgets around 1, or the powers would differ by many orders of magnitude.
    n0, d0 = np.exp(np.log(n).mean()), np.exp(np.log(d).mean())
    p, q = np.meshgrid(alphas, betas, indexing="ij")  # (I, J)
    size = (n / n0) ** -p[..., None]  # (I, J, points)
    data = (d / d0) ** -q[..., None]
    x = np.stack((np.ones_like(size), size, data), -1)  # (I, J, points, 3)
    xt = x.swapaxes(-1, -2)
    w = np.linalg.solve(xt @ x + 1e-9 * np.eye(3), xt @ bpb[:, None])[..., 0]  # (I, J, 3)
    error = ((np.einsum("ijkc,ijc->ijk", x, w) - bpb) ** 2).sum(-1)
    error[(w < 0).any(-1)] = np.inf
    if not np.isfinite(error).any():
        raise ValueError("no law with positive constants fits: do larger models and budgets help?")
    found = []
    for place in np.argsort(error, axis=None)[: min(k, np.isfinite(error).sum())]:
        i, j = np.unravel_index(place, error.shape)
        floor, a, b = map(float, w[i, j])
        alpha, beta = float(p[i, j]), float(q[i, j])
        law = Law(floor, float(a * n0**alpha), float(b * d0**beta), alpha, beta)
        found.append((float(error[i, j]), law, int(i), int(j)))
    return found


def bootstrap(scores: Sequence[Sequence[float]], n: np.ndarray, d: np.ndarray) -> list[Law]:
    """Laws fitted to points drawn again with replacement, and in each point its seeds.

    `scores` has the seeds' bits per byte of each point.
    """
    draws = np.random.default_rng(0)
    laws: list[Law] = []
    for _ in range(DRAWS):
        chosen = draws.integers(len(scores), size=len(scores))
        means = [np.mean(draws.choice(scores[i], len(scores[i]))) for i in chosen]
        try:
            laws.append(fit(n[chosen], d[chosen], np.array(means)))
        except ValueError:  # a draw of too few sizes or budgets
            continue
    return laws


# ------------------------------------------------------------------------------------ the report


def held_out(arm: Arm) -> bool:
    return arm.runs[0].settings.get("name", "").endswith(HELD_OUT)


def is_one(arms: Sequence[Arm]) -> bool:
    """Whether the arms cross at least three sizes of one model with three budgets of tokens."""
    settings = [arm.runs[0].settings for arm in arms if not held_out(arm)]
    one_model = len({s.get("model.name") for s in settings}) == 1
    return one_model and all(len({s.get(key) for s in settings} - {None}) >= 3
                             for key in ("model.n_embd", "train.tokens"))  # fmt: skip


def points(arms: Sequence[Arm]) -> tuple[np.ndarray, np.ndarray]:
    """The sizes N, without the embedding, and the tokens D of the arms."""
    ends = [arm.done[0].summary for arm in arms]
    embedding = [arm.done[0].data.tokens.vocab_size * arm.done[0].settings["model.n_embd"]
                 for arm in arms]  # fmt: skip
    n = [end.n_params - size for end, size in zip(ends, embedding, strict=True)]
    return np.array(n, float), np.array([end.tokens for end in ends], float)


def block(arms: Sequence[Arm]) -> str:
    """The fitted law, its uncertainty and what it said of the runs held out, as Markdown."""
    seen = [arm for arm in arms if not held_out(arm)]
    n, d = points(seen)
    means = np.array([arm.mean for arm in seen])
    law = fit(n, d, means)
    laws = bootstrap([[r.score for r in arm.done] for arm in seen], n, d)
    off = np.abs(law.predict(n, d) - means)
    lines = [
        f"**L(N, D) = {law.floor:.3f} + {law.a:.3g} / N^{law.alpha:.3f} "
        f"+ {law.b:.3g} / D^{law.beta:.3f}** bits per byte; over the {len(seen)} points it is off "
        f"by {off.mean():.4f} in the mean and {off.max():.4f} at most.",
        "",
        "| | fit | 95 % interval |",
        "|---|--:|--:|",
    ]
    for name, key in (("E, the floor", "floor"), ("alpha, of N", "alpha"), ("beta, of D", "beta")):
        between = interval([getattr(one, key) for one in laws], 3)
        lines.append(f"| {name} | {getattr(law, key):.3f} | {between} |")
    lines += ["", ABOUT.format(draws=len(laws))]
    if rest := [arm for arm in arms if held_out(arm)]:
        lines += ["", "| held out | predicted | 95 % interval | measured | +- | seeds |"]
        lines.append("|---|--:|--:|--:|--:|--:|")
    for arm in rest:
        (size,), (tokens,) = points([arm])
        between = interval([one.predict(size, tokens) for one in laws], 4)
        spread = "" if arm.spread is None else f"{arm.spread:.4f}"
        lines.append(
            f"| N = {size:,.0f}, D = {tokens:,.0f} | {law.predict(size, tokens):.4f} | {between} | "
            f"{arm.mean:.4f} | {spread} | {arm.n} |"
        )
    return "\n".join(lines)


def interval(values: Sequence[float], digits: int) -> str:
    low, high = np.percentile(values, (2.5, 97.5))
    return f"{low:.{digits}f} to {high:.{digits}f}"


def draw(groups: Sequence[Sequence[Arm]], path: Path) -> None:
    """Measured points, one colour a corpus and size, and each corpus's law through its own, over
    the tokens. A group holds the arms of one corpus."""
    series = []
    for arms in groups:
        n, d = points(arms)
        seen = np.array([not held_out(arm) for arm in arms])
        scores = np.array([arm.mean for arm in arms])
        law = fit(n[seen], d[seen], scores[seen])
        grid = np.geomspace(d.min(), d.max(), 60)
        where = f"{arms[0].runs[0].corpus_name}, " * (len(groups) > 1)
        for size in np.unique(n):
            at = n == size
            label = f"{where}N = {size:,.0f}" + ("" if seen[at].any() else ", held out")
            series.append(figures.Series(label, grid, law.predict(size, grid)))
            series.append(figures.Series(label, d[at], scores[at], dots=True))
    figures.chart(series, path, "training tokens D", "val/bpb")
