"""Plots as files: learning curves with the mean and the spread over seeds, labelled directly.

figures.curves(panels, Path("curves.svg"))
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any kind of colour vision; then the same, dashed.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0508e", "#c98a00", "#3d9bd6", "#555555")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))
INK, SOFT, GRID = "#1c1e21", "#6b7076", "#e4e6e8"
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#b8bcc0",
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "svg.hashsalt": "lm",  # the same numbers give the same bytes
    "svg.fonttype": "path",
}


@dataclass
class Line:
    """One arm: its seeds' curves, each (x values, y values). A single point is a level."""

    label: str
    seeds: list[tuple[Sequence[float], Sequence[float]]]

    @property
    def is_level(self) -> bool:
        """Counted, not trained: its one value is there before the first token."""
        return all(len(xs) < 2 and not any(xs) for xs, _ in self.seeds)

    def band(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, mean, lowest and highest over the seeds, where all of them have values; if that is
        nowhere, those of their last values at the mean of their last x."""
        curves = [(np.asarray(x, float), np.asarray(y, float)) for x, y in self.seeds if len(x)]
        low, high = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
        grid = np.unique(np.concatenate([x for x, _ in curves]))
        grid = grid[(grid >= low) & (grid <= high)]
        if not len(grid):  # such as seeds evaluated at their ends alone, and not at one x
            curves = [(x[-1:], y[-1:]) for x, y in curves]
            grid = np.mean([x for x, _ in curves], axis=0)  # (1,)
        ys = np.array([np.interp(grid, x, y) for x, y in curves])  # (seeds, points)
        return grid, ys.mean(0), ys.min(0), ys.max(0)


@dataclass
class Panel:
    """What is drawn into one pair of axes: the arms of one corpus."""

    title: str
    lines: list[Line]
    floors: dict[str, float] = field(default_factory=dict)  # levels to compare with, by name


def curves(panels: Sequence[Panel], path: Path, x: str = "tokens", y: str = "val/bpb") -> None:
    """Write the panels side by side; the ending of `path` says whether as .svg or .png."""
    if not panels:
        raise ValueError("no complete run has a point of val/bpb to draw")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width = {1: 7.6, 2: 11.0, 3: 14.0}[columns]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, 4.2 * rows), layout="constrained", facecolor="white")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        names = dict.fromkeys(line.label for panel in panels for line in panel.lines)
        styles = {n: (COLOURS[i % 7], DASHES[i // 7 % 3]) for i, n in enumerate(names)}
        for axis, panel in zip(axes, panels, strict=False):
            _panel(axis, panel, styles, x, y)
        for axis in axes[len(panels) :]:
            axis.remove()
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, dpi=160)


@dataclass
class Series:
    """One line of a chart, or points if `dots`; `band` holds its lowest and highest values."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None
    mark: float | None = None  # an x that a vertical line points out


def chart(series: Sequence[Series], path: Path, x: str, y: str, log: str = "x") -> None:
    """Write lines and points over `x`; `log` names the axes that are logarithmic.

    Series of one label have one colour, so that a fit is drawn through its points.
    """
    names = list(dict.fromkeys(s.label for s in series))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.2), layout="constrained", facecolor="white")
        axis = figure.subplots()
        for s in series:
            i = names.index(s.label)
            colour, dash, marker = COLOURS[i % 7], DASHES[i // 7 % 3], "osD"[i // 7 % 3]
            if s.band:
                axis.fill_between(s.x, *s.band, color=colour, alpha=0.18, linewidth=0)
            how = {"marker": marker, "linestyle": ""} if s.dots else {"linestyle": dash}
            axis.plot(
                s.x, s.y, color=colour, label=literal(s.label), markersize=5, linewidth=1.8, **how
            )
            if s.mark is not None:
                axis.axvline(s.mark, color=colour, linewidth=1.1, linestyle=(0, (5, 3)))
        for name in log:
            getattr(axis, f"set_{name}scale")("log")
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.grid(True, axis="y", color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(length=0, which="both")
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, dpi=160)


def _panel(axis: Axes, panel: Panel, styles: dict, x: str, y: str) -> None:
    axis.set_title(literal(panel.title), loc="left", fontsize=11, fontweight="bold", pad=10)
    ends: list[tuple[float, str, str]] = []  # height, text, colour
    drawn = []
    for line in panel.lines:
        if line.is_level:
            continue
        colour, dash = styles[line.label]
        grid, mean, low, high = line.band()
        axis.fill_between(grid, low, high, color=colour, alpha=0.18, linewidth=0)
        axis.plot(grid, mean, color=colour, linestyle=dash, linewidth=1.8)
        if len(grid) == 1:  # evaluated at the end alone
            axis.plot(grid, mean, "o", color=colour, markersize=4, clip_on=False)
            axis.vlines(grid, low, high, color=colour, linewidth=1.2)
        ends.append((mean[-1], f"{cut(line.label)}  {mean[-1]:.3f}", colour))
        drawn.append((grid, mean))
    levels = [
        (float(np.mean([ys[-1] for _, ys in line.seeds if len(ys)])), line.label,
         styles[line.label][0])
        for line in panel.lines if line.is_level
    ]  # fmt: skip
    levels += [(value, name, SOFT) for name, value in panel.floors.items()]
    for value, name, colour in levels:
        axis.axhline(value, color=colour, linewidth=1.1, linestyle=(0, (5, 3)), alpha=0.9)
        ends.append((value, f"{cut(name)}  {value:.3f}", colour))
    low, high = view(drawn, [value for value, _, _ in levels])
    axis.set_ylim(low, high)
    right = max((grid[-1] for grid, _ in drawn), default=1.0)
    axis.set_xlim(0, right)
    if not drawn:
        axis.set_xticks([])
    axis.set_xlabel(x if drawn else "no training: counted once")
    axis.set_ylabel(y)
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: human(v)))
    axis.grid(True, axis="y", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0)
    for place, (height, text, colour) in zip(
        spread_out([e[0] for e in ends], low, high), sorted(ends), strict=True
    ):
        moved = abs(place - height) > (high - low) * 0.01
        axis.annotate(
            text,
            (1.0, min(max(height, low), high)),
            (1.04, place),
            xycoords=axis.get_yaxis_transform(),
            textcoords=axis.get_yaxis_transform(),
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.7,
                "alpha": 0.6,
                "relpos": (0, 0.5),
            }
            if moved
            else None,
        )


def view(drawn: Sequence[tuple[np.ndarray, np.ndarray]], levels: Sequence[float]) -> tuple:
    """The heights to show: all ends and levels; of the first steep fall only its foot."""
    values = [*levels]
    for grid, mean in drawn:
        tail = mean[grid >= grid[0] + 0.08 * (grid[-1] - grid[0])]
        values += [float(tail.min()), float(tail.max()), float(mean[-1])]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.1
    return low - pad, high + pad


def spread_out(heights: Sequence[float], low: float, high: float, gap: float = 0.052) -> list:
    """Heights of labels near the given ones, sorted, none nearer than `gap` of the whole."""
    step = gap * (high - low)
    placed = [min(max(h, low), high) for h in sorted(heights)]
    for _ in range(200):
        moved = False
        for i in range(1, len(placed)):
            if (lack := step - (placed[i] - placed[i - 1])) > step * 1e-3:
                placed[i - 1] -= lack / 2
                placed[i] += lack / 2
                moved = True
        if not moved:
            break
    return placed


def cut(label: str, n: int = 34) -> str:
    return literal(label if len(label) <= n else label[: n - 3] + "...")


def literal(text: str) -> str:
    """Text that matplotlib draws as it stands, where it would take what is between $ for a formula;
    not "text.parse_math", as the ticks of logarithmic axes are formulas."""
    return text.replace("$", r"\$")


def human(value: float) -> str:
    """1500000 as 1.5M."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
