"""Read a learning-rate range test: where the loss falls fastest while the rate rises.

    lr_range.conclusion(run)      # "optimizer.lr=0.012 is suggested: the training loss falls ..."

The runs have `schedule=range`; `python -m lm.report experiment=008_lr_range` writes the results.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm.report import markdown, records
from lm.report.folding import Arm
from lm.report.records import Record, is_number

WIDTH = 0.5  # decades of the rate over which a slope is fitted
MIN_POINTS = 4  # in such a window: a line through fewer follows the noise
MANY = 2_000  # points at most: a line is fitted around each of them
ABOUT = (
    "The rate rises by equal factors over the run. Suggested: where the training loss falls "
    "fastest for a given factor of the rate (the slope of a line through half a decade), of the "
    "mean over seeds and of each seed; lowest loss: where that line's height is lowest; beyond it "
    "the rate does harm."
)
HEAD = "| arm | suggested rate | each seed | lowest loss at | seeds |\n|---|--:|--:|--:|--:|"


def is_one(arms: Sequence[Arm]) -> bool:
    """Whether all of these are range tests, whose scores say nothing by themselves."""
    return all(arm.runs[0].settings.get("schedule.name") == "range" for arm in arms)


def curve(run: Record) -> tuple[np.ndarray, np.ndarray]:
    """The rates (N,) of the logged steps and the training losses (N,) there, in nats a token.

    Of more than MANY steps the means of as many stretches.
    """
    points = run.curve("train/loss", "optim/lr")
    rates_and_losses = np.array(points, float).reshape(-1, 2)  # (N, 2)
    if len(points) > MANY:
        starts = np.arange(MANY) * len(points) // MANY
        sizes = np.diff(starts, append=len(points))
        rates_and_losses = np.add.reduceat(rates_and_losses, starts) / sizes[:, None]
    return rates_and_losses[:, 0], rates_and_losses[:, 1]


def fit_lines(rates: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At each rate that has half a window on both sides: the rate, the level and the slope.

    Level and slope are those of the line through the losses around it, in nats and nats a decade.
    `rates` and `losses` are (N,); ValueError if they span less than one window.
    """
    decades = np.log10(rates)
    half = WIDTH / 2
    inside = np.zeros(len(rates), bool)
    if len(rates):
        inside = (decades >= decades[0] + half) & (decades <= decades[-1] - half)
    if len(rates) < 2:
        raise ValueError(
            f"a range test needs two logged losses and has {len(rates)}: raise train.steps"
        )
    if not inside.any():
        raise ValueError(
            f"a range test from {rates[0]:.1e} to {rates[-1]:.1e} is too short to read: "
            "lower schedule.first"
        )
    levels = []
    slopes = []
    for centre in decades[inside]:
        near = np.abs(decades - centre) <= half
        if near.sum() < MIN_POINTS:
            raise ValueError(
                f"a range test needs {MIN_POINTS} logged losses in half a decade of the rate and "
                f"has {near.sum()}: raise train.steps or set train.log_every=1"
            )
        slope, level = np.polyfit(decades[near] - centre, losses[near], 1)
        levels.append(level)
        slopes.append(slope)
    return rates[inside], np.array(levels), np.array(slopes)


def suggested(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate at which the loss falls fastest."""
    places, _, slopes = fit_lines(rates, losses)
    return float(places[slopes.argmin()])


def conclusion(run: Record) -> str:
    """What a complete range test says of optimizer.lr, or why it says nothing, in one line."""
    rates, losses = curve(run)
    every_rate = [rate for _, rate in run.curve("optim/lr", "step")]
    lr = run.settings.get("optimizer.lr")
    # A model may scale its rates: at the end the logged one is that of optimizer.lr.
    scale = lr / every_rate[-1] if every_rate and every_rate[-1] > 0 and is_number(lr) else 1.0
    try:
        places, levels, slopes = fit_lines(rates * scale, losses)
    except ValueError as error:
        return str(error)
    best = places[slopes.argmin()]
    lowest = places[levels.argmin()]
    if slopes.argmin() == len(slopes) - 1:
        return (
            f"the training loss falls fastest at the end of the range, near {best:.1e}: "
            f"raise optimizer.lr, such as to {100 * best:.0e}"
        )
    return (
        f"optimizer.lr={best:.1e} is suggested: the training loss falls fastest there; "
        f"it is lowest at {lowest:.1e}"
    )


def after_run(out: Path) -> str:
    """The conclusion of the run in `out`, which is good whatever goes wrong in reading it."""
    try:
        return conclusion(records.read(out))
    except (ValueError, OSError) as error:
        return f"no rate is suggested: {' '.join(str(error).split())}"


def view(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """For the page: of each arm that is a range test the curve, its mark and what it says."""
    found = []
    for arm in arms:
        if not arm.done or not is_one([arm]):
            continue
        rates, losses = arm_curves(arm)
        mean = losses.mean(0)
        try:
            mark = suggested(rates, mean)
        except ValueError:
            mark = None
        points = [[float(rate), float(loss)] for rate, loss in zip(rates, mean, strict=True)]
        lines = [f"seed {run.seed}: {conclusion(run)}" for run in arm.done]
        found.append({"label": arm.label, "points": points, "mark": mark, "says": lines})
    return found


def arm_curves(arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """The rates (N,), and the losses (seeds, N) where all seeds have them."""
    curves = [curve(run) for run in arm.done]
    n = min(len(rates) for rates, _ in curves)
    rates = curves[0][0][:n]
    return rates, np.array([losses[:n] for _, losses in curves])


def block(arms: Sequence[Arm]) -> str:
    """The results as Markdown: a row an arm."""
    lines = [HEAD]
    for arm in arms:
        rates, losses = arm_curves(arm)
        mean = losses.mean(0)
        places, levels, _ = fit_lines(rates, mean)
        best = f"{suggested(rates, mean):.1e}"
        each = ", ".join(f"{suggested(rates, of_seed):.1e}" for of_seed in losses)
        lowest = f"{places[levels.argmin()]:.1e}"
        lines.append(markdown.row((arm.label, best, each, lowest, str(arm.n))))
    return "\n".join(lines)


def draw(arms: Sequence[Arm], path: Path) -> None:
    """The loss over the rate, the mean over seeds and their range, and the suggestions."""
    from lm.report import figures  # loads matplotlib, which the end of a run does without

    series = []
    for arm in arms:
        rates, losses = arm_curves(arm)
        mean = losses.mean(0)
        band = (losses.min(0), losses.max(0))
        try:
            mark = suggested(rates, mean)
        except ValueError:
            mark = None
        series.append(figures.Series(arm.label, rates, mean, band=band, mark=mark))
    figures.chart(series, path, "learning rate", "training loss, nats a token")
