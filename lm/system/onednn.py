"""The float32 products of linear layers by oneDNN, on CPUs with AVX-512.

    with onednn.products(model, ids, torch.float32):
        logits = model(ids)

PyTorch gives them to MKL, which does without AVX-512 on AMD's processors: half the speed. Forward
and backward are sums of float32 as before; a test holds them together.
"""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

# Multiplications from which on it pays: a call of oneDNN takes 10 us longer than one of MKL.
PAYS = 1 << 21
# Of a model's largest product, from which on it pays to see each function that is called: 1 us.
WORTH = 1 << 24
HERE = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def products(
    model: nn.Module, inputs: Tensor, number: torch.dtype
) -> contextlib.AbstractContextManager:
    """Where they pay; elsewhere, and in what is being compiled, nothing changes."""
    on_cpu = HERE and inputs.device.type == "cpu" and number == torch.float32
    if not on_cpu or torch.compiler.is_compiling():
        return contextlib.nullcontext()
    largest = max((p.numel() for p in model.parameters() if p.ndim == 2), default=0)
    return _Mode() if inputs.numel() * largest >= WORTH else contextlib.nullcontext()


class _Mode(TorchFunctionMode):
    """Sees every PyTorch function that is called, and replaces one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs and _pays(*args[:2]):
            return _Linear.apply(*args)
        return func(*args, **(kwargs or {}))


def _pays(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype == weight.dtype == torch.float32
        and x.ndim > 1
        and x.numel() * weight.shape[0] >= PAYS
        and not torch.is_autocast_enabled("cpu")
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, *for_bias = ctx.needs_input_grad
        rows, x = grad.flatten(0, -2), x.flatten(0, -2)  # (N, out), (N, in)
        of_weight = None
        if for_weight and weight.shape[0] > weight.shape[1]:
            of_weight = _product(x.t(), rows.t()).t()  # the longer side as columns is the faster
        elif for_weight:
            of_weight = _product(rows.t(), x.t())
        of_x = _product(grad, weight.t()) if for_x else None
        return of_x, of_weight, *(rows.sum(0) if wanted else None for wanted in for_bias)
