"""The numbers of the steps, and the matrices behind them, as plain values for the page.

found = values.of_trace(model, trace, axes_of_steps, layer=-1)
found["tables"][found["steps"][3]["out"]]     # (heads, rows, width): what step 3 gave

A row is a position; if not all fit, the last ones are kept. From these tables the page works out
by itself how any single number came about.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lm.lens import probe
from lm.lens.axes import Axis
from lm.lens.tracing import Step, Trace
from lm.lens.views import Values, quantized
from lm.models.base import LanguageModel

MAX_NUMBERS = 250_000  # of the steps: 0.7 MB on the page
BYTES = 8 / 3  # of a number on the page: 16 bits, as text
MAX_WIDTH = 8192  # numbers of a position: of a larger vocabulary section 5 shows what matters


def of_trace(
    model: LanguageModel, trace: Trace, axes_of_steps: list[list[Axis]], layer: int
) -> Values:
    """Tables of what each step gave and read; of a large model, of one layer and the rest."""
    inside = _layers_of_steps(model, trace.steps)
    chosen = _chosen(model, layer)
    tables: list[Tensor] = []  # (heads, rows, width)
    steps: list[Values] = []
    for step, axes in zip(trace.steps, axes_of_steps, strict=True):
        steps.append({"out": _add(tables, _arranged(step.result, axes)), "reads": []})
    for step, axes, shown in zip(trace.steps, axes_of_steps, steps, strict=True):
        for source in step.reads:
            if isinstance(source, int):
                shown["reads"].append(steps[source]["out"])
            elif step.result is not None and source.shape == step.result.shape:
                shown["reads"].append(_add(tables, _arranged(source, axes)))
            else:
                is_wide = source.ndim == 3 and source.is_floating_point()  # (1, T, C)
                shown["reads"].append(_add(tables, source if is_wide else None))
    if _per_position(tables) > MAX_NUMBERS:
        others = [i for i, where in enumerate(inside) if where not in (None, chosen)]
        _leave_out(tables, steps, others)
    n_rows = MAX_NUMBERS // max(1, _per_position(tables))
    if n_rows == 0:
        _leave_out(tables, steps, range(len(steps)))
    for step, shown in zip(trace.steps, steps, strict=True):
        shown["params"] = list(step.params)
        shown["eps"] = _eps(model, step)
    return {
        "tables": [_table(table[:, -n_rows:]) if table.numel() else None for table in tables],
        "steps": steps,
    }


def matrices(model: LanguageModel, trace: Trace, layer: int, n_bytes: int) -> dict[str, Values]:
    """The parameters that fit into so many bytes of the page, by name: one layer's come first.

    Not those of an embedding, whose rows are what it gives.
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
            if tensor is None or tensor.ndim > 2 or name in found or tensor.numel() > room:
                continue
            found[name] = _table(tensor.detach().float().reshape(1, -1, tensor.shape[-1]))
            room -= tensor.numel()
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


def _add(tables: list[Tensor], table: Tensor | None) -> int | None:
    """The number of a table once it is there; None for one that is absent or too wide."""
    if table is None or table.shape[-1] > MAX_WIDTH:
        return None
    tables.append(table)
    return len(tables) - 1


def _per_position(tables: Sequence[Tensor]) -> int:
    return sum(table.shape[0] * table.shape[2] for table in tables)


def _leave_out(tables: list[Tensor], steps: Sequence[Values], which: Sequence[int]) -> None:
    """Empty the tables that these steps gave or read, unless another step has them, too."""
    kept = set()
    for i, step in enumerate(steps):
        if i not in which:
            kept |= {step["out"], *step["reads"]}
    for i in which:
        for table in (steps[i]["out"], *steps[i]["reads"]):
            if table is not None and table not in kept:
                tables[table] = tables[table][:, :0, :0]


def _eps(model: nn.Module, step: Step) -> float:
    """What a norm adds below its root."""
    own = dict(model.named_modules()).get(step.path)
    return float(getattr(own, "eps", None) or 0.0)


def _table(table: Tensor) -> Values:
    """A table (heads, rows, width) on the page; 0 for what is masked, infinite or NaN."""
    heads, rows, width = table.shape
    finite = table.where(table.isfinite(), 0.0)
    is_sound = bool(table.isfinite().all()) or math.isinf(float(table.min()))
    return {"heads": heads, "rows": rows, "width": width, "sound": is_sound, **quantized(finite)}
