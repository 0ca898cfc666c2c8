"""Watch a model at work: every step's shapes, parameters and operations, read off the run itself.

    trace = probe.record(model, ids)                    # ids (B, T)
    for step in trace.steps:
        print(step.path, step.kind, step.output, step.flops)

PyTorch's own hooks do the watching, so nothing here can disagree with the model's code, and no
model knows of it. Attention maps are recomputed by the plain softmax from the queries and keys
that went into the fused kernel, and checked against what came out of it.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

from lm.models.base import LanguageModel
from lm.system import devices

devices.stay_plain(getattr(flop_counter, "_FlopCounterMode", FlopCounterMode).__torch_dispatch__)

Shape = tuple[int, ...]
# Functions that are steps of their own where a module calls them; all else is bookkeeping.
SHOWN = {
    *("linear", "matmul", "__matmul__", "bmm", "einsum", "conv1d", "embedding", "softmax"),
    *("log_softmax", "scaled_dot_product_attention", "relu", "gelu", "silu", "tanh", "sigmoid"),
    *("rms_norm", "layer_norm", "square"),
}
PAIRED = {"add", "mul"}  # shown where two of what stands for all positions meet
ACROSS = {"cat", "cumsum", "unfold"}  # shown where positions or their widths are put together
SILENT = (nn.Dropout, nn.Identity)  # they do nothing when a model is read


@dataclass
class Step:
    """One thing the model did: what went in, what came out, what it used and what it cost."""

    path: str  # the module, as in model.get_submodule(path); of a function: the one that calls it
    kind: str  # the module's class, or the function's name
    inputs: list[Shape]
    output: Shape
    params: dict[str, Shape] = field(default_factory=dict)  # by their names in the model
    flops: int = 0  # products and sums of the matrix products in this forward pass
    note: str = ""

    @property
    def n_params(self) -> int:
        return sum(math.prod(shape) for shape in self.params.values())


@dataclass
class Attention:
    """One layer's attention: who looked at whom, and what was taken from there."""

    path: str
    weights: Tensor  # (B, H, T, S), each row sums to 1
    values: Tensor | None = None  # (B, H, S, D); None where the code holds them out of sight
    error: float = 0.0  # the largest difference from what the fused kernel returned


@dataclass
class Trace:
    """What one forward pass did."""

    logits: Tensor  # (B, T, V)
    steps: list[Step] = field(default_factory=list)
    attention: list[Attention] = field(default_factory=list)
    layers: list[tuple[str, Tensor]] = field(default_factory=list)  # path, output (B, T, C);
    # the first is what goes into the first of them, called "embedding"
    flops: int = 0


@torch.no_grad()
def record(model: LanguageModel, ids: Tensor) -> Trace:
    """Run the model on ids (B, T) and note every step. The model is left as it was."""
    trace = Trace(logits=torch.empty(0))
    names = {id(p): name for name, p in [*model.named_parameters(), *model.named_buffers()]}
    was_training = model.training
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            watch = _Watch(trace, names, counter, ids.shape[1])
            with _module_hooks(model, watch), watch:
                trace.logits = model(ids)
            trace.flops = counter.get_total_flops() + watch.uncounted
    finally:
        model.train(was_training)
    return trace


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that follow each other, by path: the members of the model's longest ModuleList."""
    lists = [(n, m) for n, m in model.named_children() if isinstance(m, nn.ModuleList)]
    if not lists:
        return {}
    name, found = max(lists, key=lambda pair: len(pair[1]))
    return {f"{name}.{i}": layer for i, layer in enumerate(found)}


def unembed(model: nn.Module, x: Tensor) -> Tensor | None:
    """Logits (..., V) as the model's own head reads them from a layer's output; None: it cannot.

    `unembed(x)` of the model where it has one, else its `head`, if that takes such a width.
    """
    if hasattr(model, "unembed"):
        return model.unembed(x).float()
    head = getattr(model, "head", None)
    if isinstance(head, nn.Linear) and head.in_features == x.shape[-1]:
        return head(x).float()
    return None


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (B, H, T, S), values (B, H, S, D) and their products (B, H, T, D), written out.

    For k and v of fewer heads than q each of theirs serves several neighbouring ones of q.
    """
    share = q.shape[-3] // k.shape[-3]
    k, v = (x.repeat_interleave(share, dim=-3) for x in (k, v))
    scores = q @ k.mT * (scale or 1 / math.sqrt(q.shape[-1]))  # (B, H, T, S)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(dim=-1)
    return weights, v, weights @ v


class _Watch(TorchFunctionMode):
    """Sees every PyTorch function that runs while the model does."""

    def __init__(self, trace: Trace, names: dict[int, str], counter: FlopCounterMode, T: int):
        super().__init__()
        self.trace, self.names, self.counter, self.T = trace, names, counter, T
        self.layers: set[str] = set()  # paths of the layers
        self.open: list[str] = []  # the modules at work, outermost first
        self.inside_leaf = 0
        self.uncounted = 0  # what PyTorch's counter does not know, less what it counted of us

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.inside_leaf:
            return func(*args, **kwargs)
        if name.strip("_") in PAIRED:
            return self._pair(name.strip("_"), func(*args, **kwargs), args)
        if name in ACROSS:
            return self._across(name, func(*args, **kwargs), args)
        if name not in SHOWN:
            return func(*args, **kwargs)
        before = self.counter.get_total_flops()
        out = func(*args, **kwargs)
        flops = self.counter.get_total_flops() - before
        path = self.open[-1] if self.open else ""
        if name == "scaled_dot_product_attention":
            self._attention(path, out, flops, *args, **kwargs)
            return out
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        params = {self.names[id(t)]: tuple(t.shape) for t in tensors if id(t) in self.names}
        inputs = [tuple(t.shape) for t in tensors if id(t) not in self.names]
        kind, seen = name.strip("_"), {key for step in self.trace.steps for key in step.params}
        note = "tied: the matrix that a step above has" if seen & set(params) else ""
        self.trace.steps.append(Step(path, kind, inputs, tuple(out.shape), params, flops, note))
        if kind == "softmax" and out.ndim >= 3 and out.shape[-2:] == (self.T, self.T):
            weights = out.detach().reshape(out.shape[0], -1, self.T, self.T).float()
            self.trace.attention.append(Attention(path, weights))  # attention written by hand
        return out

    def _pair(self, kind: str, out: Tensor, args: Any) -> Tensor:
        """Note a sum or product, number by number, of two tensors over all positions."""
        path = self.open[-1] if self.open else ""
        inputs = [tuple(a.shape) for a in args if isinstance(a, Tensor)]
        if out.is_complex() and kind == "mul" and out.shape[1:2] == (self.T,):
            text = "each pair of numbers turned by its position's angle"
            self.trace.steps.append(Step(path, "rotate", inputs, tuple(out.shape), note=text))
        elif len(inputs) == 2 and out.ndim == 3 and {s[-2:] for s in inputs} == {out.shape[-2:]}:
            residual = kind == "add" and path in self.layers
            text = "residual: what came in stays, and this is added" if residual else ""
            self.trace.steps.append(Step(path, kind, inputs, tuple(out.shape), note=text))
        return out

    def _across(self, kind: str, out: Tensor, args: Any) -> Tensor:
        """Note a sum over positions, or neighbours laid side by side, in what has a width."""
        if out.is_floating_point() and out.ndim >= 3 and self.T in out.shape[1:]:
            tensors = args[0] if isinstance(args[0], (tuple, list)) else args[:1]
            inputs = [tuple(a.shape) for a in tensors]
            path = self.open[-1] if self.open else ""
            self.trace.steps.append(Step(path, kind, inputs, tuple(out.shape)))
        return out

    def _attention(
        self, path: str, out: Tensor, flops: int, q: Tensor, k: Tensor, v: Tensor,
        attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, enable_gqa: bool = False,
    ) -> None:  # fmt: skip
        """The steps inside the fused kernel, from the tensors that went into it."""
        counted = self.counter.get_total_flops()
        weights, values, mixed = plain_attention(
            q.float(), k.float(), v.float(), attn_mask, is_causal, scale
        )
        self.uncounted -= self.counter.get_total_flops() - counted  # ours, not the model's
        error = (mixed - out.float()).abs().max().item()
        close = torch.allclose(mixed, out.float(), rtol=1e-4, atol=1e-5) or q.dtype != torch.float32
        assert close, f"attention of {path}: the plain softmax differs from the kernel by {error}"
        if not flops:  # of the kernel for CPUs: the two products, over the whole square
            flops = 4 * weights.numel() * q.shape[-1]
            self.uncounted += flops
        attention = Attention(path, weights, values, error)
        self.trace.attention.append(attention)
        shapes = [tuple(t.shape) for t in (q, k, v)]
        scores = tuple(weights.shape)
        (H, D), G = (q.shape[-3], q.shape[-1]), k.shape[-3]
        rows = [H * D, G * D, G * D]
        inside = [s for s in self.trace.steps if s.path.startswith(f"{path}.")]
        if inside and inside[-1].output[-1] == sum(rows):  # one matrix for the three of them
            text = "{:,} numbers for the query, {:,} for the key, {:,} for the value"
            inside[-1].note = text.format(*rows)
        cut = "the {:,} numbers of a position, as {} heads of {:,}"
        masked = "; a later one is masked" if is_causal else ""
        for kind, inputs, shape, cost, text in (
            ("query", [], shapes[0], 0, cut.format(H * D, H, D)),
            ("key", [], shapes[1], 0, cut.format(G * D, G, D)),
            ("value", [], shapes[2], 0, cut.format(G * D, G, D)),
            ("scores", shapes[:2], scores, flops // 2,
             f"a row for each position that looks, a column for each it looks at{masked}"),
            ("softmax", [scores], scores, 0, "each row becomes shares that sum to 1"),
            ("weighted sum", [scores, shapes[2]], tuple(out.shape), flops - flops // 2, ""),
        ):  # fmt: skip
            self.trace.steps.append(Step(path, kind, inputs, shape, {}, cost, text))


@contextlib.contextmanager
def _module_hooks(model: LanguageModel, watch: _Watch) -> Iterator[None]:
    """Tell `watch` which module is at work, and note the modules that are steps of their own."""
    trace, handles = watch.trace, []
    layers = layers_of(model)
    wanted, watch.layers = {id(layer) for layer in layers.values()}, set(layers)

    def before(path: str, module: nn.Module, leaf: bool, args: tuple) -> None:
        if id(module) in wanted and not trace.layers and args and isinstance(args[0], Tensor):
            trace.layers.append(("embedding", args[0].detach().float()))
        watch.open.append(path)
        watch.inside_leaf += leaf
        started.append((len(trace.steps), watch.counter.get_total_flops()))

    def after(path: str, module: nn.Module, leaf: bool, args: tuple, out: Any) -> None:
        watch.open.pop()
        watch.inside_leaf -= leaf
        n_before, flops_before = started.pop()
        first = out[0] if isinstance(out, tuple) else out
        if not isinstance(first, Tensor):
            return
        if id(module) in wanted:
            trace.layers.append((path, first.detach().float()))
        own_step = leaf or (not list(module.children()) and len(trace.steps) == n_before)
        if own_step and not watch.inside_leaf and not isinstance(module, SILENT):
            inputs = [tuple(a.shape) for a in args if isinstance(a, Tensor)]
            tensors = [*module.named_parameters(recurse=False)]
            tensors += [] if tensors else [*module.named_buffers(recurse=False)]
            params = {".".join(filter(None, [path, n])): tuple(p.shape) for n, p in tensors}
            parts = stacked.get(path)
            note = " + ".join(f"{n:,}" for n in parts) + " outputs" if parts else ""
            if trace.steps and trace.steps[-1].kind == "weighted sum" and inputs:
                H, D = trace.steps[-1].output[1::2]
                if inputs[0][-1] == H * D:
                    note = f"reads the heads side by side: {H} x {D} = {H * D:,} numbers"
            flops = watch.counter.get_total_flops() - flops_before
            kind = type(module).__name__
            trace.steps.append(Step(path, kind, inputs, tuple(first.shape), params, flops, note))

    stacked = model.stacked_rows()
    started: list[tuple[int, int]] = []
    for path, module in model.named_modules():
        ready_made = type(module).__module__.startswith("torch.nn")
        if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            continue
        leaf = ready_made and not isinstance(module, nn.Sequential)
        handles.append(
            module.register_forward_pre_hook(lambda m, a, p=path, x=leaf: before(p, m, x, a))
        )
        handles.append(
            module.register_forward_hook(lambda m, a, o, p=path, x=leaf: after(p, m, x, a, o))
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# ------------------------------------------------------------------------- the axes of the shapes


@dataclass
class Axis:
    """What one axis of a shape counts."""

    size: int
    letter: str = ""  # B, T, C, H, D, V ...; empty: a number of this model's own
    per_batch: int = 0  # powers of the number of rows and of positions it grows with
    per_position: int = 0


def with_axes(model: LanguageModel, ids: Tensor) -> tuple[Trace, list[list[Axis]]]:
    """The trace of ids (1, T), and for each step the axes of its output.

    Which axes are rows and which are positions is found by experiment: the model is run again
    with one more row, and with one position less.
    """
    trace = record(model, ids)
    T = ids.shape[1]
    wider = record(model, ids.repeat(2, 1)).steps
    shorter = record(model, ids[:, :-1] if T > 1 else ids.repeat(1, 2)).steps
    axes = []
    for i, step in enumerate(trace.steps):
        others = [steps[i].output if i < len(steps) else () for steps in (wider, shorter)]
        comparable = all(len(o) == len(step.output) for o in others)
        row = []
        for j, size in enumerate(step.output):
            by_row = comparable and others[0][j] != size
            by_position = comparable and others[1][j] != size
            row.append(Axis(size, "", int(by_row), int(by_position)))
        axes.append(row)
    heads = _heads(trace)
    for step, row in zip(trace.steps, axes, strict=True):
        _name(model, step, row, T, heads)
    return trace, axes


def _heads(trace: Trace) -> dict[int, str]:
    """What the sizes inside attention mean: heads of queries, of keys, of both; and D last."""
    H = next((s.output[1] for s in trace.steps if s.kind == "query"), 0)
    G = next((s.output[1] for s in trace.steps if s.kind == "key"), 0)
    return {H + 2 * G: "H+2G", H + G: "H+G", G: "G", H: "H"} if H else {}


def _name(model: LanguageModel, step: Step, row: list[Axis], T: int, heads: dict) -> None:
    """Letters for the axes, where their meaning is certain; M for a width of the layer's own."""
    widths = {getattr(model.cfg, key, None): letter for key, letter in WIDTHS.items()}
    C = getattr(model.cfg, "n_embd", 0)
    for j, axis in enumerate(row):
        last = j == len(row) - 1
        if axis.per_batch or axis.per_position:
            more = f"+{axis.size - T}" if axis.per_position and axis.size > T else ""
            axis.letter = "B" * axis.per_batch + "T" * axis.per_position + more
        elif step.kind == "unfold":  # (B, T, C, W)
            axis.letter = "W" if last else widths.get(axis.size, "")
        elif heads and len(row) == 4:
            pairs = "/2" if step.kind == "rotate" else ""
            axis.letter = "D" + pairs if last else heads.get(axis.size, "")
        elif last and axis.size == model.vocab_size and axis.size not in widths:
            axis.letter = "V"
        elif last:
            several = f"{axis.size // C}C" if C and axis.size % C == 0 else "M"
            axis.letter = widths.get(axis.size, "V" if axis.size == model.vocab_size else several)


WIDTHS = {"n_hidden": "M", "n_embd": "C"}
AXES = {
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
