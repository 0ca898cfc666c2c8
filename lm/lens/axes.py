"""Letters for the axes of the shapes in a trace: B rows, T positions, C width, H heads, ...

trace, axes = with_axes(model, ids)                 # ids (1, T)
"""

from dataclasses import dataclass

from torch import Tensor

from lm.lens import probe
from lm.lens.tracing import Shape, Step, Trace
from lm.models.base import LanguageModel

MEANINGS = {
    "B": "rows: texts read side by side, which never see each other",
    "T": "positions: tokens of one text (T+7: with 7 places before it)",
    "C": "width: numbers that stand for one position (3C: three times as many)",
    "M": "hidden width: numbers of one position inside a layer",
    "H": "heads: attention done several times, each its own way",
    "G": "heads of keys and values: several query heads may share one",
    "D": "head size: numbers of one position in one head (D/2: in pairs)",
    "W": "window: a position and those before it, laid side by side",
    "V": "vocabulary: one number for every token that could come next",
}


@dataclass
class Axis:
    """What one axis of a shape counts."""

    size: int
    letter: str = ""  # as in MEANINGS; empty: a number of this model's own
    per_batch: int = 0  # powers of the number of rows and of positions it grows with
    per_position: int = 0


def with_axes(model: LanguageModel, ids: Tensor) -> tuple[Trace, list[list[Axis]]]:
    """The trace of ids (1, T), and for each step the axes of its output.

    Which axes are rows and which are positions is found by experiment: the model is run again
    with one more row, and with one position less.
    """
    trace = probe.record(model, ids)
    T = ids.shape[1]
    wider = probe.record(model, ids.repeat(2, 1)).steps
    other_length = ids[:, :-1] if T > 1 else ids.repeat(1, 2)
    shorter = probe.record(model, other_length).steps
    heads = _heads(trace)
    axes = []
    for i, step in enumerate(trace.steps):
        row = _measured(step.output, _output(wider, i), _output(shorter, i))
        for axis in row:
            is_last = axis is row[-1]
            axis.letter = _letter(model, step, axis, is_last, T, heads)
        axes.append(row)
    return trace, axes


def _output(steps: list[Step], i: int) -> Shape:
    return steps[i].output if i < len(steps) else ()


def _measured(output: Shape, with_more_rows: Shape, with_other_length: Shape) -> list[Axis]:
    """The axes of `output`, by what changed in the other runs; nothing if their rank differs."""
    if not len(output) == len(with_more_rows) == len(with_other_length):
        return [Axis(size) for size in output]
    row = []
    for size, size_by_row, size_by_position in zip(
        output, with_more_rows, with_other_length, strict=True
    ):
        per_batch = int(size_by_row != size)
        per_position = int(size_by_position != size)
        row.append(Axis(size, per_batch=per_batch, per_position=per_position))
    return row


def _heads(trace: Trace) -> dict[int, str]:
    """Letters for the numbers of heads inside attention: H of queries, G of keys and values."""
    outputs = {step.kind: step.output for step in reversed(trace.steps)}  # of the first of a kind
    if "query" not in outputs:
        return {}
    H = outputs["query"][1]
    G = outputs["key"][1]
    return {H + 2 * G: "H+2G", H + G: "H+G", G: "G", H: "H"}


def _letter(
    model: LanguageModel, step: Step, axis: Axis, is_last: bool, T: int, heads: dict[int, str]
) -> str:
    """The letter of an axis where its meaning is certain; M for a width of the layer's own."""
    C = getattr(model.cfg, "n_embd", 0)
    widths = {getattr(model.cfg, "n_hidden", None): "M", C or None: "C"}
    if axis.per_batch or axis.per_position:
        extra = axis.size - T
        letters = "B" * axis.per_batch + "T" * axis.per_position
        return f"{letters}+{extra}" if axis.per_position and extra > 0 else letters
    if step.kind == "unfold":  # (B, T, C, W)
        return "W" if is_last else widths.get(axis.size, "")
    if heads and len(step.output) == 4:
        if not is_last:
            return heads.get(axis.size, "")
        return "D/2" if step.kind == "rotate" else "D"
    if not is_last:
        return ""
    if axis.size in widths:
        return widths[axis.size]
    in_layer = any(f"{step.path}.".startswith(f"{path}.") for path in probe.layers_of(model))
    if axis.size == model.vocab_size and not in_layer:
        return "V"
    return f"{axis.size // C}C" if C and axis.size % C == 0 else "M"
