"""A learning-rate range test, read: where the loss falls fastest while the rate rises.

The runs have `schedule=range`; `python -m lm.report experiment=008_lr_range` writes the results.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lm.report import figures, records
from lm.report.records import Arm, Record

WIDTH = 0.5  # decades of the rate over which a slope is fitted
ABOUT = (
    "The rate rises by equal factors over the run. Suggested: where the training loss falls "
    "fastest for a given factor of the rate (the slope of a line through half a decade), of the "
    "mean over seeds and of each seed; lowest loss: where that line's height is lowest; beyond it "
    "the rate does harm."
)


def is_one(arms: Sequence[Arm]) -> bool:
    """Whether all of these are range tests, whose scores say nothing by themselves."""
    return all(arm.runs[0].settings.get("schedule.name") == "range" for arm in arms)


def curve(run: Record) -> tuple[np.ndarray, np.ndarray]:
    """The rates (N,) of the logged steps and the training losses there, in nats a token."""
    pairs = np.array(run.curve("train/loss", "optim/lr"), float).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def fitted(rates: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At each rate that has half a window on both sides: the rate, the level and the slope of the
    line through the losses around it, in nats and nats a decade."""
    place = np.log10(rates)
    inside = (place >= place[0] + WIDTH / 2) & (place <= place[-1] - WIDTH / 2)
    if not inside.any():
        raise ValueError(
            f"a range test from {rates[0]:.1e} to {rates[-1]:.1e} is too short to read: "
            "lower schedule.first"
        )
    found = []
    for centre in place[inside]:
        near = np.abs(place - centre) <= WIDTH / 2
        slope, level = np.polyfit(place[near] - centre, losses[near], 1)
        found.append((level, slope))
    levels, slopes = np.array(found).T
    return rates[inside], levels, slopes


def suggested(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate at which the loss falls fastest."""
    places, _, slopes = fitted(rates, losses)
    return float(places[slopes.argmin()])


def mean_curve(arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """The rates (N,), and the losses (seeds, N) where all seeds have them."""
    curves = [curve(run) for run in arm.done]
    n = min(len(rates) for rates, _ in curves)
    return curves[0][0][:n], np.array([losses[:n] for _, losses in curves])


def block(arms: Sequence[Arm]) -> str:
    """The results as Markdown: a row an arm."""
    lines = ["| arm | suggested rate | each seed | lowest loss at | seeds |"]
    lines.append("|---|--:|--:|--:|--:|")
    for arm in arms:
        rates, losses = mean_curve(arm)
        places, levels, _ = fitted(rates, losses.mean(0))
        each = ", ".join(f"{suggested(rates, row):.1e}" for row in losses)
        best = f"{suggested(rates, losses.mean(0)):.1e}"
        lowest = f"{places[levels.argmin()]:.1e}"
        lines.append(records.table_row((arm.label, best, each, lowest, str(arm.n))))
    return "\n".join(lines)


def draw(arms: Sequence[Arm], path: Path) -> None:
    """The loss over the rate, the mean over seeds and their range, and the suggestions."""
    series = []
    for arm in arms:
        rates, losses = mean_curve(arm)
        mark = suggested(rates, losses.mean(0))
        band = (losses.min(0), losses.max(0))
        series.append(figures.Series(arm.label, rates, losses.mean(0), band=band, mark=mark))
    figures.chart(series, path, "learning rate", "training loss, nats a token")
