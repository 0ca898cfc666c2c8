"""Pictures for the lessons, as HTML that is drawn in the reader's own colours, light or dark.

draw.grid(weights, rows=list("To be"), columns=list("To be"), title="who looks at whom")
"""

import html
import math
from collections.abc import Mapping, Sequence

import marimo as mo
from torch import Tensor

# Half-transparent colours are readable on a light page and on a dark one.
ABOVE = "66, 133, 244"  # red, green, blue of numbers above 0
BELOW = "230, 126, 34"
CHIPS = ("66, 133, 244", "46, 160, 67", "230, 126, 34")
LINES = ("rgb(66, 133, 244)", "rgb(230, 126, 34)", "rgb(46, 160, 67)", "rgb(171, 71, 188)")
TINY = "padding: 0 2px; min-width: 14px; line-height: 14px; font-size: 11px; border: 0"
CELL = "padding: 2px 5px; text-align: center; white-space: pre; border: 0"
SCROLLS = "overflow-x: auto; max-width: 100%"  # on a phone, rather than the whole page


def chips(tokens: Sequence[str], title: str = "") -> mo.Html:
    """Tokens side by side, each in a colour other than its neighbours'."""
    spans = []
    for i, token in enumerate(tokens):
        style = f"background: rgba({CHIPS[i % len(CHIPS)]}, 0.3); border-radius: 4px; "
        style += "padding: 2px 3px; margin: 1px; white-space: pre; display: inline-block"
        spans.append(f'<span style="{style}">{html.escape(token)}</span>')
    return _picture(title, f'<div style="font-family: monospace">{"".join(spans)}</div>')


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> mo.Html:
    """Rows of text or numbers under their columns."""
    head = "".join(f'<th style="{CELL}">{html.escape(name)}</th>' for name in columns)
    body = ""
    for row in rows:
        cells = "".join(f'<td style="{CELL}">{html.escape(str(cell))}</td>' for cell in row)
        body += f'<tr style="border-top: 1px solid rgba(128, 128, 128, 0.3)">{cells}</tr>'
    return _picture(title, f'<div style="{SCROLLS}">{_table(head, body)}</div>')


def grid(
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str] = (),
    title: str = "",
    digits: int = 2,
    marked: int = -1,
) -> mo.Html:
    """Numbers (R, C) as coloured cells, blue above 0 and orange below; -inf stays blank.

    `digits` are those behind the point; -1 shows the colours alone. The row `marked` has a frame.
    """
    cells = _cells(values, rows, columns, digits, marked)
    return _picture(title, f'<div style="{SCROLLS}">{cells}</div>')


def sheets(
    values: Tensor,
    rows: Sequence[Sequence[str]],
    columns: Sequence[Sequence[str]] | None = None,
    title: str = "",
    digits: int = 1,
) -> mo.Html:
    """A batch of numbers (B, R, C) as B grids side by side, which is how to picture three axes."""
    drawn = ""
    for b, sheet in enumerate(values):
        names = columns[b] if columns else ()
        cells = _cells(sheet, rows[b], names, digits)
        drawn += f'<div style="{SCROLLS}"><small>row {b} of the batch</small>{cells}</div>'
    style = "display: flex; flex-wrap: wrap; gap: 20px"
    return _picture(title, f'<div style="{style}">{drawn}</div>')


def bars(shares: Mapping[str, float], title: str = "", unit: str = "") -> mo.Html:
    """One bar for each name, as long as its number is large."""
    highest = max(shares.values(), default=0.0) or 1.0
    rows = ""
    for name, share in shares.items():
        style = f"background: rgba({ABOVE}, 0.55); height: 14px; border-radius: 2px; "
        bar = f'<div style="{style}width: {60 * share / highest:.1f}%; min-width: 1px"></div>'
        style = "width: 5.5em; text-align: right; white-space: pre"
        label = f'<code style="{style}">{html.escape(name)}</code>'
        row = f'{label}{bar}<small style="white-space: nowrap">{share:.3g}{unit}</small>'
        rows += f'<div style="display: flex; gap: 8px; align-items: center">{row}</div>'
    return _picture(title, rows)


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]],
    title: str = "",
    x: str = "",
    levels: Mapping[str, float] | None = None,
    log_x: bool = False,
    dots: bool = False,
) -> mo.Html:
    """Points (x, y) of each name, joined or as `dots`; `levels` are dashed lines at a y."""
    levels = levels or {}
    width, height, left, bottom = 620, 260, 52, 34
    points = [point for line in series.values() for point in line]
    xs = [_x(a, log_x) for a, _ in points]
    ys = [b for _, b in points] + list(levels.values())
    x_low, x_high = _widened(min(xs), max(xs), 0.04 if dots else 0.0)
    y_low, y_high = _widened(min(ys), max(ys), 0.06)

    def place(a: float, b: float) -> tuple[float, float]:
        across = left + (a - x_low) / (x_high - x_low) * (width - left - 10)
        return across, 8 + (y_high - b) / (y_high - y_low) * (height - bottom - 8)

    parts = []
    for i in range(5):
        value = y_low + (y_high - y_low) * (0.1 + 0.2 * i)
        _, y = place(x_low, value)
        parts.append(_line(left, y, width - 10, y, "currentColor", 'opacity="0.15"'))
        parts.append(_text(left - 6, y + 4, f"{value:.2f}", "end"))
    for value in sorted({a for a, _ in points}) if dots else (min(xs), max(xs)):
        across, _ = place(_x(value, log_x) if dots else value, y_low)
        parts.append(_text(across, height - bottom + 16, f"{value:g}", "middle"))
    parts.append(_text((left + width) / 2, height - 3, x, "middle"))
    legend = []
    for i, (name, line) in enumerate(series.items()):
        colour = LINES[i % len(LINES)]
        at = [place(_x(a, log_x), b) for a, b in line]
        if dots:
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="5" fill="{colour}"/>' for a, b in at]
        else:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
            style = f'fill="none" stroke="{colour}" stroke-width="2"'
            parts.append(f'<polyline points="{path}" {style}/>')
        legend.append(f'<span style="color: {colour}">&#9679; {html.escape(name)}</span>')
    for i, (name, y) in enumerate(levels.items()):
        colour = LINES[(len(series) + i) % len(LINES)]
        _, b = place(x_low, y)
        parts.append(_line(left, b, width - 10, b, colour, 'stroke-dasharray="6 4"'))
        legend.append(f'<span style="color: {colour}">- - {html.escape(name)} {y:.3f}</span>')
    # Narrower than that its words cannot be read: it is scrolled.
    style = f"width: 100%; max-width: {width}px; min-width: {0.75 * width:.0f}px"
    picture = f'<svg viewBox="0 0 {width} {height}" style="{style}">'
    names = f'<div style="display: flex; flex-wrap: wrap; gap: 14px">{"".join(legend)}</div>'
    drawn = f'<div style="{SCROLLS}">{picture}{"".join(parts)}</svg></div>'
    return _picture(title, drawn + names)


def visible(text: str) -> str:
    """Text whose blanks and line breaks can be seen."""
    return text.replace(" ", "\u2423").replace("\n", "\u21b5").replace("\t", "\u2192")


def _picture(title: str, body: str) -> mo.Html:
    """One element, so that pictures can stand side by side."""
    head = f"<div><b>{html.escape(title)}</b></div>" if title else ""
    return mo.Html(f"<div>{head}{body}</div>")


def _table(head: str, body: str) -> str:
    style = "border-collapse: collapse; width: auto; margin: 4px 0; font-size: 14px"
    return f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cells(
    values: Tensor, rows: Sequence[str], columns: Sequence[str], digits: int, marked: int = -1
) -> str:
    style_of_cell = CELL if digits >= 0 else TINY
    numbers = values.detach().float().tolist()
    finite = [abs(value) for row in numbers for value in row if math.isfinite(value)]
    highest = max(finite, default=0.0) or 1.0
    head = ""
    if columns:
        names = "".join(f'<th style="{style_of_cell}">{html.escape(c)}</th>' for c in columns)
        head = f"<th></th>{names}"
    body = ""
    for i, (name, row) in enumerate(zip(rows, numbers, strict=True)):
        cells = f'<th style="{style_of_cell}; text-align: right">{html.escape(name)}</th>'
        for value in row:
            style = style_of_cell
            shown = ""
            if math.isfinite(value):
                colour = ABOVE if value >= 0 else BELOW
                style += f"; background: rgba({colour}, {0.75 * abs(value) / highest:.2f})"
                shown = f"{value:.{digits}f}" if digits >= 0 else "&nbsp;"
            cells += f'<td style="{style}">{shown}</td>'
        frame = ' style="outline: 2px solid currentColor"' if i == marked else ""
        body += f"<tr{frame}>{cells}</tr>"
    return _table(head, body)


def _x(value: float, log_x: bool) -> float:
    return math.log10(value) if log_x else value


def _widened(low: float, high: float, share: float) -> tuple[float, float]:
    """The range with some room at both ends, never empty."""
    room = (high - low) * share or (0.5 if high == low else 0.0)
    return low - room, high + room


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" {more}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    style = f'fill="currentColor" font-size="12" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(text)}</text>'
