"""Plots as files: learning curves with the mean and the range over seeds, labelled directly.

figures.curves(panels, Path("curves.svg"))
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lm.system import files

# Okabe and Ito's colours, told apart with any kind of colour vision; then the same, dashed.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0508e", "#c98a00", "#3d9bd6", "#555555")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))
MARKERS = "osD"
WIDTHS = {1: 7.6, 2: 11.0, 3: 14.0}  # inches, by the number of panels side by side
INK = "#1c1e21"
SOFT = "#6b7076"
GRID = "#e4e6e8"
# What stands near the beginning of each picture that is drawn here, by its kind.
MARKS = {".svg": "<dc:title>lm</dc:title>", ".png": "Software\0lm"}
LEVEL_DASH = (0, (5, 3))  # of lines that are no curve
STYLE: dict[Any, object] = {
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

Numbers = Sequence[float] | np.ndarray
Points = tuple[Numbers, Numbers]  # the x and the y values of a curve


@dataclass
class Line:
    """One arm: the curves of its seeds."""

    label: str
    seeds: list[Points]

    @property
    def is_level(self) -> bool:
        """Whether it was counted, not trained: its one value is there before the first token."""
        return all(len(xs) < 2 and not any(xs) for xs, _ in self.seeds)

    @property
    def level(self) -> float:
        """The mean of the seeds' last values."""
        return float(np.mean([ys[-1] for _, ys in self.seeds if len(ys)]))

    def band(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, mean, lowest and highest (points,) over the seeds, where all of them have values.

        Where no x has values of all seeds, these are of the last values, at the mean of the last x.
        """
        curves = [(np.asarray(x, float), np.asarray(y, float)) for x, y in self.seeds if len(x)]
        low = max(x[0] for x, _ in curves)
        high = min(x[-1] for x, _ in curves)
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
    levels: dict[str, float] = field(default_factory=dict)  # to compare with, by name


@dataclass
class Series:
    """One line of a chart, or points if `dots`; `band` holds its lowest and highest values."""

    label: str
    x: Numbers
    y: Numbers
    dots: bool = False
    band: Points | None = None
    mark: float | None = None  # an x that a vertical line points out


class Style(NamedTuple):
    """How a label's line looks: one of 21 looks, by its place among the labels."""

    colour: str
    dash: str | tuple
    marker: str


class End(NamedTuple):
    """Where a line meets the right side of its panel, and what it is called there."""

    height: float
    label: str
    colour: str


def curves(panels: Sequence[Panel], path: Path, x: str = "tokens", y: str = "val/bpb") -> None:
    """Write the panels side by side; the ending of `path` says whether as .svg or .png."""
    if not panels:
        raise ValueError("no complete run has a point of val/bpb to draw")
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    styles = _styles(line.label for panel in panels for line in panel.lines)
    with matplotlib.rc_context(STYLE):
        size = (WIDTHS[n_columns], 4.2 * n_rows)
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
        figure = Figure(figsize=size, layout=layout, facecolor="white")
        axes = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
        for axis, panel in zip(axes, panels, strict=False):
            _draw_panel(axis, panel, styles, x, y)
        for axis in axes[len(panels) :]:
            axis.remove()
        _save(figure, path)


def chart(series: Sequence[Series], path: Path, x: str, y: str, log: str = "x") -> None:
    """Write lines and points over `x`; `log` names the axes that are logarithmic.

    Series of one label have one colour, so that a fit is drawn through its points.
    """
    styles = _styles(s.label for s in series)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.2), layout="constrained", facecolor="white")
        axis = figure.subplots()
        for s in series:
            _draw_series(axis, s, styles[s.label])
        for name in log:
            getattr(axis, f"set_{name}scale")("log")
        axis.set(xlabel=x, ylabel=y)
        _clear_frame(axis)
        _add_legend(figure, axis)
        _save(figure, path)


def charts(panels: Mapping[str, Sequence[Series]], path: Path, x: Sequence[str], y: str) -> None:
    """Write charts on logarithmic axes, two in a row with one y axis; `x` names each one's own."""
    n_rows = math.ceil(len(panels) / 2)
    styles = _styles(s.label for series in panels.values() for s in series)
    with matplotlib.rc_context(STYLE):
        size = (WIDTHS[2], 3.9 * n_rows)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        axes = figure.subplots(n_rows, 2, squeeze=False, sharey="row").flatten()
        for axis, title, name in zip(axes, panels, x, strict=False):
            _set_title(axis, title)
            for s in panels[title]:
                _draw_series(axis, s, styles[s.label])
            axis.set(xlabel=name, xscale="log", yscale="log")
            xs = sorted({int(value) for s in panels[title] for value in s.x})
            axis.set_xticks(xs, [str(value) for value in xs])
            axis.minorticks_off()
            axis.tick_params(labelleft=True)
            _clear_frame(axis)
        for axis in axes[::2]:
            axis.set_ylabel(y)
            low, high = axis.get_ylim()
            if high < 10 * low:  # a logarithmic axis has no number between two powers of ten
                axis.yaxis.set_major_locator(ticker.MaxNLocator(6))
                axis.yaxis.set_major_formatter(ticker.ScalarFormatter())
        _add_legend(figure, axes[0])
        _save(figure, path)


def _styles(labels: Iterable[str]) -> dict[str, Style]:
    styles = {}
    for i, label in enumerate(dict.fromkeys(labels)):
        n = i // len(COLOURS) % len(DASHES)
        styles[label] = Style(COLOURS[i % len(COLOURS)], DASHES[n], MARKERS[n])
    return styles


def check_own(path: Path) -> None:
    """ConfigError where a file that a chart would replace is none that was drawn here."""
    files.check_own(path, MARKS[path.suffix])


def _save(figure: Figure, path: Path) -> None:
    metadata = {"Software": "lm"}
    if path.suffix == ".svg":  # the same plot is the same bytes, and known to be ours
        metadata = {"Date": None, "Creator": "lm"}
    plot = io.BytesIO()
    figure.savefig(plot, format=path.suffix[1:], metadata=metadata, dpi=160)
    files.atomic_write(path, plot.getvalue())


def _clear_frame(axis: Axes) -> None:
    axis.grid(True, axis="y", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0, which="both")


def _set_title(axis: Axes, title: str) -> None:
    axis.set_title(literal(title), loc="left", fontsize=11, fontweight="bold", pad=10)


def _add_legend(figure: Figure, axis: Axes) -> None:
    """Write a legend beside the figure, with each label of `axis` once."""
    handles, labels = axis.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    figure.legend(by_label.values(), by_label.keys(), loc="outside right upper", frameon=False)


def _draw_series(axis: Axes, series: Series, style: Style) -> None:
    colour = style.colour
    if series.band:
        axis.fill_between(series.x, *series.band, color=colour, alpha=0.18, linewidth=0)
    look = {"color": colour, "label": literal(series.label), "markersize": 5, "linewidth": 1.8}
    if series.dots:
        look |= {"marker": style.marker, "linestyle": ""}
    else:
        look |= {"linestyle": style.dash}
    axis.plot(series.x, series.y, **look)
    if series.mark is not None:
        axis.axvline(series.mark, color=colour, linewidth=1.1, linestyle=LEVEL_DASH)


def _draw_panel(axis: Axes, panel: Panel, styles: dict[str, Style], x: str, y: str) -> None:
    _set_title(axis, panel.title)
    drawn = []
    ends = []
    levels = []
    for line in panel.lines:
        style = styles[line.label]
        if line.is_level:
            levels.append(End(line.level, line.label, style.colour))
        else:
            grid, mean = _draw_band(axis, line, style)
            drawn.append((grid, mean))
            ends.append(End(mean[-1], line.label, style.colour))
    levels += [End(value, name, SOFT) for name, value in panel.levels.items()]
    for value, _, colour in levels:
        axis.axhline(value, color=colour, linewidth=1.1, linestyle=LEVEL_DASH, alpha=0.9)
    low, high = view(drawn, [level.height for level in levels])
    axis.set_ylim(low, high)
    axis.set_xlim(0, max((grid[-1] for grid, _ in drawn), default=1.0))
    if not drawn:
        axis.set_xticks([])
    axis.set(xlabel=x if drawn else "no training: counted once", ylabel=y)
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: human(v)))
    _clear_frame(axis)
    _label_ends(axis, ends + levels, low, high)


def _draw_band(axis: Axes, line: Line, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Draw a line's mean and range over seeds; returns the x and the means (points,)."""
    grid, mean, low, high = line.band()
    _draw_series(axis, Series(line.label, grid, mean, band=(low, high)), style)
    if len(grid) == 1:  # evaluated at the end alone
        axis.plot(grid, mean, "o", color=style.colour, markersize=4, clip_on=False)
        axis.vlines(grid, low, high, color=style.colour, linewidth=1.2)
    return grid, mean


def _label_ends(axis: Axes, ends: Sequence[End], low: float, high: float) -> None:
    """Write the labels beside the axes, none over another, with a line to what is far from it."""
    beside = axis.get_yaxis_transform()
    places = spread_out([end.height for end in ends], low, high)
    for place, end in zip(places, sorted(ends), strict=True):
        line = None
        if abs(place - end.height) > (high - low) * 0.01:
            line = {"arrowstyle": "-", "color": end.colour, "lw": 0.7, "alpha": 0.6}
            line["relpos"] = (0, 0.5)
        axis.annotate(
            f"{cut(end.label)}  {end.height:.3f}",
            xy=(1.0, min(max(end.height, low), high)),
            xytext=(1.04, place),
            xycoords=beside,
            textcoords=beside,
            color=end.colour,
            va="center",
            annotation_clip=False,
            arrowprops=line,
        )


def view(
    drawn: Sequence[tuple[np.ndarray, np.ndarray]], levels: Sequence[float]
) -> tuple[float, float]:
    """The heights to show: all ends and levels; of the first steep fall only its foot."""
    values = [*levels]
    for grid, mean in drawn:
        foot = grid[0] + 0.08 * (grid[-1] - grid[0])
        tail = mean[grid >= foot]
        values += [float(tail.min()), float(tail.max()), float(mean[-1])]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.1
    return low - pad, high + pad


def spread_out(heights: Sequence[float], low: float, high: float) -> list[float]:
    """Heights of labels near the given ones, sorted, and a line of text apart from each other."""
    step = 0.052 * (high - low)
    placed = [min(max(h, low), high) for h in sorted(heights)]
    for _ in range(200):
        moved = False
        for i in range(1, len(placed)):
            lack = step - (placed[i] - placed[i - 1])
            if lack > step * 1e-3:
                placed[i - 1] -= lack / 2
                placed[i] += lack / 2
                moved = True
        if not moved:
            break
    return placed


def cut(label: str, n: int = 34) -> str:
    """At most n characters of a label."""
    return literal(label if len(label) <= n else label[: n - 3] + "...")


def literal(text: str) -> str:
    """Text that matplotlib draws as it stands, where it would take what is between $ for a formula.

    Not "text.parse_math", as the ticks of logarithmic axes are formulas.
    """
    return text.replace("$", r"\$")


def human(value: float) -> str:
    """1500000 as 1.5M."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
