"""Watch a model at work: every step's shapes, parameters and operations, read off the run itself.

    trace = probe.record(model, ids)                    # ids (B, T)
    for step in trace.steps:
        print(step.path, step.kind, step.output, step.flops)

PyTorch's own hooks do the watching, so nothing here can disagree with the model's code, and no
model knows of it.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

from lm.lens import attention
from lm.lens.tracing import Attention, Shape, Step, Trace
from lm.models.base import LanguageModel
from lm.system import devices
from lm.system.interception import Interception

# Functions that are steps of their own where a module calls them; all else is bookkeeping.
SHOWN = {
    *("linear", "matmul", "__matmul__", "bmm", "einsum", "conv1d", "embedding", "softmax"),
    *("log_softmax", "relu", "gelu", "silu", "tanh", "sigmoid"),
    *("rms_norm", "layer_norm", "square"),
}
FUSED_ATTENTION = "scaled_dot_product_attention"  # shown as the steps inside it
PAIRED = {"add", "mul"}  # shown where two tensors that cover all positions meet
# Shown where a tensor that covers all positions meets one number, such as the cap of logits.
SCALED = {"mul": "mul", "rmul": "mul", "div": "div", "truediv": "div"}
ACROSS = {"cat", "cumsum", "unfold"}  # shown where positions or their widths are put together
# Among the arguments of a norm, where eps stands.
EPS_PLACES = {"rms_norm": 3, "rmsnorm": 3, "layer_norm": 4, "layernorm": 4}
SILENT = (nn.Dropout, nn.Identity)  # they do nothing in evaluation mode


@torch.no_grad()
def record(model: LanguageModel, ids: Tensor) -> Trace:
    """Run the model on ids (B, T) in evaluation mode and note every step.

    The model's mode, hooks and parameters are left as they were. Raises AssertionError if the fused
    attention kernel disagrees with the plain softmax.
    """
    # Newer versions of PyTorch keep the method that runs for each operation in a class of its own.
    counter_class: Any = getattr(flop_counter, "_FlopCounterMode", FlopCounterMode)
    devices.stay_plain(counter_class.__torch_dispatch__)
    was_training = model.training
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            watch = _Watch(model, counter, ids.shape[1])
            with _module_hooks(model, watch), watch:
                watch.trace.logits = model(ids)
            watch.trace.flops = counter.get_total_flops() + watch.uncounted_flops
    finally:
        model.train(was_training)
    return watch.trace


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that follow each other, by path: the members of the model's longest ModuleList."""
    lists = {}
    for name, module in model.named_children():
        if isinstance(module, nn.ModuleList):
            lists[name] = module
    if not lists:
        return {}
    longest = max(lists, key=lambda name: len(lists[name]))
    return {f"{longest}.{i}": layer for i, layer in enumerate(lists[longest])}


def unembed(model: nn.Module, x: Tensor) -> Tensor | None:
    """Logits (..., V) that the model's own head reads from a layer's output x (..., C).

    They come from the model's method `unembed(x)` if it has one, else from its `head`. None if the
    model has neither, or a head of another width.
    """
    own_unembed = getattr(model, "unembed", None)
    if own_unembed is not None:
        return own_unembed(x).float()
    head = getattr(model, "head", None)
    if isinstance(head, nn.Linear) and head.in_features == x.shape[-1]:
        return head(x).float()
    return None


def shapes_of(values: Sequence[object]) -> list[Shape]:
    """The shapes of the tensors among some arguments."""
    return [tuple(value.shape) for value in values if isinstance(value, Tensor)]


def _numbers(value: Tensor) -> Tensor:
    """The numbers of a tensor, safe from changes in place; a complex one as two."""
    numbers = value.detach()
    if numbers.is_complex():
        numbers = torch.view_as_real(numbers).flatten(-2)
    return numbers.float().clone()


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers, NaN being the same as NaN."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _constants(kind: str, args: tuple, given: Mapping[str, object]) -> dict[str, float]:
    """The constants of a norm or of GELU, from a call's arguments or a module's attributes."""
    if kind in EPS_PLACES:
        place = EPS_PLACES[kind]
        eps = given.get("eps", args[place] if len(args) > place else None)
        if not isinstance(eps, float):  # what PyTorch takes where none is given
            eps = 1e-5 if "layer" in kind else torch.finfo(torch.float32).eps
        return {"eps": eps}
    if kind == "gelu":
        return {"by_tanh": float(given.get("approximate") == "tanh")}
    return {}


class _Watch(Interception):
    """Notes in a trace each PyTorch function that runs while the model does."""

    def __init__(self, model: LanguageModel, counter: FlopCounterMode, n_positions: int):
        super().__init__()
        self.trace = Trace(logits=torch.empty(0))
        self.counter = counter
        self.n_positions = n_positions
        named = [*model.named_parameters(), *model.named_buffers()]
        self.names = {id(tensor): name for name, tensor in named}
        self.layers = layers_of(model)
        self.stacked_rows = model.stacked_rows()
        self.running: list[str] = []  # paths of the modules at work, outermost first
        self.n_running_leaves = 0  # of them, modules that are one step with all inside them
        self.made: dict[int, tuple[int, Tensor]] = {}  # by a tensor's id: the step that gave it
        self.uncounted_flops = 0  # what PyTorch's counter does not know, less what it counted of us

    def note(self, step: Step, result: Tensor, reads: Sequence[object]) -> None:
        """Add a step with its numbers, and where those come from that it computes with."""
        step.result = _numbers(result)
        for value in reads:
            if isinstance(value, Tensor) and id(value) not in self.names:
                step.reads.append(self._source(value))
        self.made[id(result)] = (len(self.trace.steps), result)  # kept, so that no id comes twice
        self.trace.steps.append(step)

    def _source(self, value: Tensor) -> int | Tensor:
        """The number of the step that gave this tensor, or its numbers, if none did."""
        numbers = _numbers(value)
        if id(value) in self.made:
            i, _ = self.made[id(value)]
            given = self.trace.steps[i].result
            if given is not None and _is_same(given, numbers):  # not changed in place since
                return i
        return numbers

    @property
    def path(self) -> str:
        """The innermost module at work."""
        return self.running[-1] if self.running else ""

    def call(self, func: Callable, args: tuple, kwargs: dict[str, object]) -> object:
        if self.n_running_leaves:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        kind = name.strip("_")
        flops_before = self.counter.get_total_flops()
        out = func(*args, **kwargs)
        flops = self.counter.get_total_flops() - flops_before
        if kind in PAIRED:
            self._note_pair(kind, out, args)
        if kind in SCALED:
            self._note_scaled(SCALED[kind], out, args)
        elif name in ACROSS:
            self._note_across(kind, out, args)
        elif name == FUSED_ATTENTION:
            self._note_attention(out, flops, *args, **kwargs)
        elif name in SHOWN:
            self._note_function(kind, out, flops, args, kwargs)
        return out

    def _note_function(
        self, kind: str, out: Tensor, flops: int, args: tuple, kwargs: dict[str, object]
    ) -> None:
        arguments = [*args, *kwargs.values()]
        inputs: list[Shape] = []
        params: dict[str, Shape] = {}
        for argument in arguments:
            if not isinstance(argument, Tensor):
                continue
            shape = tuple(argument.shape)
            if id(argument) in self.names:
                params[self.names[id(argument)]] = shape
            else:
                inputs.append(shape)
        is_tied = any(params.keys() & step.params.keys() for step in self.trace.steps)
        note = "tied: the matrix that a step above has" if is_tied else ""
        constants = _constants(kind, args, kwargs)
        step = Step(self.path, kind, inputs, tuple(out.shape), params, flops, note, constants)
        self.note(step, out, arguments)
        T = self.n_positions
        if kind == "softmax" and out.ndim >= 3 and out.shape[-2:] == (T, T):
            # Attention that the model writes out by hand.
            weights = out.detach().reshape(out.shape[0], -1, T, T).float()  # (B, H, T, T)
            self.trace.attention.append(Attention(self.path, weights))

    def _note_pair(self, kind: str, out: Tensor, args: tuple) -> None:
        """Note a sum or product, number by number, of two tensors over all positions."""
        inputs = shapes_of(args)
        output = tuple(out.shape)
        if out.is_complex() and kind == "mul" and output[1:2] == (self.n_positions,):
            note = "each pair of numbers turned by its position's angle"
            self.note(Step(self.path, "rotate", inputs, output, note=note), out, args)
        elif len(inputs) == 2 and out.ndim == 3 and {s[-2:] for s in inputs} == {output[-2:]}:
            is_residual = kind == "add" and self.path in self.layers
            note = (
                "residual: what came in stays and this is added, so the width C stays, too"
                if is_residual
                else ""
            )
            self.note(Step(self.path, kind, inputs, output, note=note), out, args)

    def _note_scaled(self, kind: str, out: Tensor, args: tuple) -> None:
        """Note a tensor over all positions that is multiplied or divided by one number."""
        numbers = [arg for arg in args if isinstance(arg, (int, float))]
        is_wide = out.ndim == 3 and out.shape[1] == self.n_positions and out.is_floating_point()
        if len(numbers) == 1 and is_wide:
            verb = "times" if kind == "mul" else "divided by"
            step = Step(self.path, kind, shapes_of(args), tuple(out.shape))
            step.note = f"each {verb} {numbers[0]:g}"
            step.constants = {"factor": float(numbers[0])}
            self.note(step, out, args)

    def _note_across(self, kind: str, out: Tensor, args: tuple) -> None:
        """Note a sum over positions, or neighbours laid side by side, in what has a width."""
        if out.is_floating_point() and out.ndim >= 3 and self.n_positions in out.shape[1:]:
            tensors = args[0] if isinstance(args[0], (tuple, list)) else args[:1]
            self.note(Step(self.path, kind, shapes_of(tensors), tuple(out.shape)), out, tensors)

    def _note_attention(
        self,
        out: Tensor,
        flops: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        """Note the steps inside PyTorch's fused attention, from the tensors that went into it."""
        flops_before = self.counter.get_total_flops()
        inputs = attention.KernelInputs(query, key, value, attn_mask, is_causal, scale)
        found = attention.recomputed(self.path, inputs, out)
        self.uncounted_flops -= self.counter.get_total_flops() - flops_before  # not the model's
        self.trace.attention.append(found)
        if not flops:  # of the kernel for CPUs: the two products, over the whole square
            flops = 4 * found.weights.numel() * query.shape[-1]
            self.uncounted_flops += flops
        attention.note_projection(self.trace.steps, self.path, inputs)
        for step, result, reads in attention.inner_steps(found, inputs, out, flops):
            self.note(step, result, reads)


@contextlib.contextmanager
def _module_hooks(model: nn.Module, watch: _Watch) -> Iterator[None]:
    """Tell `watch` which module is at work, and note the modules that are steps of their own."""
    handles = []
    for path, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            observer = _ModuleObserver(path, module, watch)
            handles.append(module.register_forward_pre_hook(observer.before))
            handles.append(module.register_forward_hook(observer.after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _ModuleObserver:
    """The hooks of one module."""

    def __init__(self, path: str, module: nn.Module, watch: _Watch):
        self.path = path
        self.watch = watch
        is_ready_made = type(module).__module__.startswith("torch.nn")
        self.is_leaf = is_ready_made and not isinstance(module, nn.Sequential)
        self.is_layer = any(module is layer for layer in watch.layers.values())
        self.n_steps_before = 0
        self.flops_before = 0

    def before(self, module: nn.Module, args: tuple) -> None:
        trace = self.watch.trace
        if self.is_layer and not trace.layers and args and isinstance(args[0], Tensor):
            trace.layers.append(("embedding", args[0].detach().float()))
        self.watch.running.append(self.path)
        self.watch.n_running_leaves += self.is_leaf
        self.n_steps_before = len(trace.steps)
        self.flops_before = self.watch.counter.get_total_flops()

    def after(self, module: nn.Module, args: tuple, out: object) -> None:
        trace = self.watch.trace
        self.watch.running.pop()
        self.watch.n_running_leaves -= self.is_leaf
        first = out[0] if isinstance(out, tuple) else out
        if not isinstance(first, Tensor):
            return
        if self.is_layer:
            trace.layers.append((self.path, first.detach().float()))
        has_inner_steps = len(trace.steps) > self.n_steps_before
        is_step = self.is_leaf or not (list(module.children()) or has_inner_steps)
        if is_step and not self.watch.n_running_leaves and not isinstance(module, SILENT):
            self.watch.note(self._step(module, shapes_of(args), tuple(first.shape)), first, args)

    def _step(self, module: nn.Module, inputs: list[Shape], output: Shape) -> Step:
        tensors = list(module.named_parameters(recurse=False))
        if not tensors:
            tensors = list(module.named_buffers(recurse=False))
        params: dict[str, Shape] = {}
        for name, tensor in tensors:
            params[f"{self.path}.{name}".lstrip(".")] = tuple(tensor.shape)
        flops = self.watch.counter.get_total_flops() - self.flops_before
        kind = type(module).__name__
        note = self._note(inputs)
        constants = _constants(kind.lower(), (), vars(module))
        return Step(self.path, kind, inputs, output, params, flops, note, constants)

    def _note(self, inputs: list[Shape]) -> str:
        steps = self.watch.trace.steps
        if steps and steps[-1].kind == "weighted sum" and inputs:
            _, H, _, D = steps[-1].output
            if inputs[0][-1] == H * D:
                return f"reads the heads side by side: {H} x {D} = {H * D:,} numbers"
        n_rows = self.watch.stacked_rows.get(self.path)
        return " + ".join(f"{n:,}" for n in n_rows) + " outputs" if n_rows else ""
