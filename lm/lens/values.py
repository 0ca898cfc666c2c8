"""The numbers of the steps, and the matrices behind them, as plain values for the page.

found = values.of_trace(model, trace, axes_of_steps, layer=-1)
found["tables"][found["steps"][3]["out"]]     # (heads, rows, width): what step 3 gave

A row is a position; if not all fit, the last ones are kept. From these tables the page works out
by itself how any single number came about.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from lm.lens import probe
from lm.lens.axes import Axis
from lm.lens.tracing import Step, Trace
from lm.lens.views import Values, quantized
from lm.models.base import LanguageModel

MAX_NUMBERS = 400_000  # of the steps: 1.1 MB on the page
MIN_ROWS = 16  # positions, for which the numbers of other layers are left out
PART = 64  # rows of a matrix that is too large
BYTES = 8 / 3  # of a number on the page: 16 bits, as text
MAX_WIDTH = 8192  # numbers of a position: of a larger vocabulary section 5 shows what matters
NO_POSITIONS = "this step does not give numbers for each position"
TOO_WIDE = "{width:,} numbers at each position are too many: section 5 shows the largest"
OTHER_LAYER = (
    "the page has room for the numbers of one layer: layer={layer} shows those of this one"
)
TOO_MANY = "the steps have too many numbers at each position: a smaller model shows them"


def of_trace(
    model: LanguageModel,
    trace: Trace,
    axes_of_steps: list[list[Axis]],
    layer: int,
    max_numbers: int = MAX_NUMBERS,
) -> Values:
    """Tables of what each step gave and read; of a large model, of one layer and the rest.

    A step without a table has a sentence under "missing" that says why.
    """
    inside = _layers_of_steps(model, trace.steps)
    chosen = _chosen(model, layer)
    tables: list[Tensor] = []  # (heads, rows, width)
    steps: list[Values] = []
    for step, axes in zip(trace.steps, axes_of_steps, strict=True):
        arranged = _arranged(step.result, axes)
        steps.append({"out": _add(tables, arranged), "reads": [], "missing": _why_not(arranged)})
    for step, axes, shown in zip(trace.steps, axes_of_steps, steps, strict=True):
        for source in step.reads:
            if isinstance(source, int):
                shown["reads"].append(steps[source]["out"])
            else:
                shown["reads"].append(_add(tables, _read(source, step, axes)))
    T = trace.logits.shape[1]
    if max_numbers < min(T, MIN_ROWS) * _per_position(tables):
        others = [i for i, where in enumerate(inside) if where not in (None, chosen)]
        _leave_out(tables, steps, others, OTHER_LAYER, inside)
    own = [i for i, where in enumerate(inside) if where == chosen]
    whole = _whole(tables, steps, trace.steps, own, max_numbers // 2)
    n_numbers = max_numbers - sum(tables[i].numel() for i in whole)
    in_part = [table for i, table in enumerate(tables) if i not in whole]
    n_rows = n_numbers // max(1, _per_position(in_part))
    if n_rows == 0:
        _leave_out(tables, steps, range(len(steps)), TOO_MANY, inside)
    for step, shown in zip(trace.steps, steps, strict=True):
        shown["params"] = list(step.params)
        shown["constants"] = step.constants
    on_page = []
    for i, table in enumerate(tables):
        kept = table if i in whole else table[:, -max(1, n_rows) :]
        on_page.append(_table(kept) if kept.numel() else None)
    return {"tables": on_page, "steps": steps}


def matrices(model: LanguageModel, trace: Trace, layer: int, n_bytes: int) -> dict[str, Values]:
    """The parameters that fit into so many bytes of the page, by name: one layer's come first.

    Of that layer's matrices that are too large the first rows are there, so that at least the first
    numbers that they give can be taken apart. An embedding's is left out: its rows are what it
    gives.
    """
    inside = _layers_of_steps(model, trace.steps)
    chosen = _chosen(model, layer)
    order = sorted(range(len(inside)), key=lambda i: inside[i] not in (None, chosen))
    named = dict(model.named_parameters())
    room = int(n_bytes / BYTES)
    found: dict[str, Values] = {}
    for i in order:
        step = trace.steps[i]
        if step.kind in ("Embedding", "embedding"):
            continue
        for name in step.params:
            tensor = named.get(name)
            if tensor is None or tensor.ndim > 2 or name in found:
                continue
            rows = tensor.detach().float().reshape(1, -1, tensor.shape[-1])
            if rows.numel() > room and inside[i] in (None, chosen):
                rows = rows[:, :PART]
            if rows.numel() <= room:
                found[name] = _table(rows)
                room -= rows.numel()
    return found


def _chosen(model: LanguageModel, layer: int) -> int:
    n_layer = len(probe.layers_of(model))
    return layer % n_layer if n_layer else 0


def _layers_of_steps(model: LanguageModel, steps: Sequence[Step]) -> list[int | None]:
    """The number of the layer that each step is in, None outside of all."""
    layers = list(probe.layers_of(model))
    found: list[int | None] = []
    for step in steps:
        numbers = [i for i, path in enumerate(layers) if f"{step.path}.".startswith(f"{path}.")]
        found.append(numbers[0] if numbers else None)
    return found


def _arranged(result: Tensor | None, axes: Sequence[Axis]) -> Tensor | None:
    """What a step gave for one row, as (heads, positions, numbers); None if it has no positions."""
    positions = [i for i, axis in enumerate(axes) if axis.per_position and not axis.per_batch]
    if result is None or not result.is_floating_point() or not positions or result.ndim > 4:
        return None
    if positions[0] == 0:  # the same for all rows, such as (T, C) of the positions' embedding
        return result.flatten(1)[None]
    heads = [
        i for i, axis in enumerate(axes) if set(axis.letter) & set("HG") and i not in positions
    ]
    first = [*heads, positions[0]]
    rest = [i for i in range(1, result.ndim) if i not in first]
    if not heads:
        result = result.permute(0, *first, *rest)  # the one row of the batch stands for one head
        return result.flatten(2) if result.ndim > 2 else result[..., None]
    return result[0].permute(*(i - 1 for i in (*first, *rest))).flatten(2)


def _read(source: Tensor, step: Step, axes: Sequence[Axis]) -> Tensor | None:
    """What a step read, as (heads, positions, numbers), where no step before it gave that."""
    result = step.result
    if result is not None and source.ndim <= result.ndim:
        # Such as angles, which are the same for all heads.
        padded = source.reshape((1,) * (result.ndim - source.ndim) + source.shape)
        sizes = zip(padded.shape, result.shape, axes, strict=True)
        if all(n == size or (n == 1 and not axis.per_position) for n, size, axis in sizes):
            return _arranged(padded, axes)
    is_wide = source.ndim == 3 and source.is_floating_point()  # (1, T, C)
    return source if is_wide else None


def _why_not(arranged: Tensor | None) -> str:
    if arranged is None:
        return NO_POSITIONS
    width = arranged.shape[-1]
    return TOO_WIDE.format(width=width) if width > MAX_WIDTH else ""


def _whole(
    tables: Sequence[Tensor],
    shown: Sequence[Values],
    steps: Sequence[Step],
    first: Sequence[int],
    room: int,
) -> set[int]:
    """The tables of keys and values, of which one number of attention needs all positions.

    As many as have `room` numbers together; those of the steps `first` come first.
    """
    attending = [i for i, step in enumerate(steps) if step.kind in ("scores", "weighted sum")]
    whole: set[int] = set()
    for i in sorted(attending, key=lambda i: i not in first):
        table = shown[i]["reads"][1]
        if table is not None and table not in whole and tables[table].numel() <= room:
            whole.add(table)
            room -= tables[table].numel()
    return whole


def _add(tables: list[Tensor], table: Tensor | None) -> int | None:
    """The number of a table once it is there; None for one that is absent or too wide."""
    if table is None or table.shape[-1] > MAX_WIDTH:
        return None
    tables.append(table)
    return len(tables) - 1


def _per_position(tables: Sequence[Tensor]) -> int:
    return sum(table.shape[0] * table.shape[2] for table in tables)


def _leave_out(
    tables: list[Tensor],
    steps: Sequence[Values],
    which: Sequence[int],
    why: str,
    inside: Sequence[int | None],
) -> None:
    """Empty the tables that these steps gave or read, unless another step has them, too."""
    kept = set()
    for i, step in enumerate(steps):
        if i not in which:
            kept |= {step["out"], *step["reads"]}
    for i in which:
        for table in (steps[i]["out"], *steps[i]["reads"]):
            if table is not None and table not in kept:
                tables[table] = tables[table][:, :0, :0]
    for i in which:
        out = steps[i]["out"]
        if out is not None and not tables[out].numel():
            steps[i]["missing"] = why.format(layer=inside[i])


def _table(table: Tensor) -> Values:
    """A table (heads, rows, width) on the page; 0 for what is masked, infinite or NaN."""
    heads, rows, width = table.shape
    finite = table.where(table.isfinite(), 0.0)
    is_sound = bool(table.isfinite().all()) or math.isinf(float(table.min()))
    return {"heads": heads, "rows": rows, "width": width, "sound": is_sound, **quantized(finite)}
