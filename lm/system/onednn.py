"""The float32 products of linear layers by oneDNN, on CPUs with AVX-512.

    with onednn.products(model, ids, torch.float32):
        logits = model(ids)

PyTorch gives them to MKL, which does without AVX-512 on AMD's processors: half the speed. Forward
and backward are sums of float32 as before; a test holds them together. The two operators have no
public name: PyTorch's compiler calls them so.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from lm.system.interception import Interception

# Multiplications from which on it pays: a call of oneDNN takes 10 us longer than one of MKL.
MIN_PRODUCT = 1 << 21
# Of a model's largest product, from which on it pays to see each function that is called: 1 us.
MIN_LARGEST_PRODUCT = 1 << 24
FASTER_HERE = (
    torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
)


def products(
    model: nn.Module, inputs: Tensor, dtype: torch.dtype
) -> contextlib.AbstractContextManager:
    """A context in which the model's linear layers call oneDNN, where they run faster for it.

    Elsewhere, and in what is being compiled, it changes nothing. `inputs` are token ids (B, T),
    `dtype` is the type of the model's matrix products.
    """
    on_cpu = FASTER_HERE and inputs.device.type == "cpu" and dtype == torch.float32
    if not on_cpu or torch.compiler.is_compiling():
        return contextlib.nullcontext()
    largest = max((p.numel() for p in model.parameters() if p.ndim == 2), default=0)
    if inputs.numel() * largest < MIN_LARGEST_PRODUCT:
        return contextlib.nullcontext()
    return _LinearByOneDNN()


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> Tensor:
    """F.linear of x (..., in) and weight (out, in) by oneDNN; with `gelu` GPT-2's GELU of it."""
    activation = "gelu" if gelu else "none"
    variant = "tanh" if gelu else ""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], variant)


def reordered(
    weight: Tensor, bias: Tensor | None, n_row: int, gelu: bool = False
) -> Callable[[Tensor], Tensor]:
    """`product` for x (n_row, in), on a copy of the weight in the order oneDNN reads fastest."""
    copy = torch.ops.mkldnn._reorder_linear_weight(weight, n_row)
    return lambda x: product(x, copy, bias, gelu)


class _LinearByOneDNN(Interception):
    """Sees every PyTorch function that is called, and replaces F.linear."""

    def call(self, func: Callable, args: tuple, kwargs: dict[str, object]) -> object:
        if func is F.linear and not kwargs and _pays(args[0], args[1]):
            return _Linear.apply(*args)
        return func(*args, **kwargs)


def _pays(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype == weight.dtype == torch.float32
        and x.ndim > 1
        and x.numel() * weight.shape[0] >= MIN_PRODUCT
        and not torch.is_autocast_enabled("cpu")
    )


class _Linear(torch.autograd.Function):
    """F.linear with its backward pass: three products by oneDNN."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)  # (N, out)
        x = x.flatten(0, -2)  # (N, in)
        grads: list[Tensor | None] = [None] * len(ctx.needs_input_grad)  # of x, weight, bias
        if ctx.needs_input_grad[0]:
            grads[0] = product(grad, weight.t())
        if ctx.needs_input_grad[1]:
            n_out, n_in = weight.shape
            if n_out > n_in:  # the longer side as columns is the faster
                grads[1] = product(x.t(), rows.t()).t()
            else:
                grads[1] = product(rows.t(), x.t())
        if len(grads) == 3 and ctx.needs_input_grad[2]:
            grads[2] = rows.sum(0)
        return tuple(grads)
