"""The loss of a large vocabulary: the logits of some rows at a time, never those of all.

    x, head = model.before_logits(ids)
    loss = head_loss.loss(x, head, targets)  # the mean of -ln p, and its gradient

Where V is large, logits (B, T, V), their softmax and the gradient to them are by far the largest
tensors of a step. But each row's loss stands for itself. So a piece of the rows gets its logits;
their gradient is the softmax, less 1 at the target; two products at once turn it into the gradient
of what the head reads, (B, T, C), and of its weights, (V, C), where the pieces are added up in
float32. The backward pass multiplies both by a number. No product is computed twice.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lm import metrics


class Sizes(NamedTuple):
    """From how many logits of a pass on they go in pieces, and how large a piece is."""

    least: int  # logits of a pass: with fewer there is little memory to save
    piece: int  # logits of a piece
    rows: int  # of a piece at least: each adds to all weights' gradients, however few rows it has


# 64 MB of float32 logits; 16 MB stay in a CPU's cache from one operation to the next.
CPU = Sizes(least=1 << 24, piece=1 << 22, rows=256)
GPU = Sizes(least=1 << 31, piece=1 << 28, rows=256)  # 8 and 1 GB; not yet run on one


class Head(NamedTuple):
    """A model's last step: logits x W' + b of x (..., C), or for token ids x the rows W[x]."""

    weight: Tensor  # (V, C)
    bias: Tensor | None = None  # (V,)
    softcap: float = 0.0  # logits to softcap * tanh(logits / softcap); 0: off

    def logits(self, x: Tensor) -> Tensor:
        """Logits (..., V), in float32 at least, of x (..., C) or token ids (...)."""
        if x.is_floating_point():
            logits = F.linear(x, self.weight, self.bias)
        else:
            logits = F.embedding(x, self.weight)
        logits = logits.to(_at_least_float32(logits))
        if self.softcap:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits


def sizes(device: torch.device) -> Sizes:
    return CPU if device.type == "cpu" else GPU


def nats(x: Tensor, head: Head, targets: Tensor) -> Tensor:
    """-ln p(target) as (B, T), for x (B, T, C) and targets (B, T); 0 where metrics.IGNORE."""
    x, head = _as_autocast_would(x, head)
    rows = _pieces(x, head, targets)
    return torch.cat([metrics.nats(head.logits(x), y) for x, y in rows]).view(targets.shape)


def loss(x: Tensor, head: Head, targets: Tensor) -> Tensor:
    """The mean of `nats` over the targets that count: metrics.next_token_loss."""
    x, head = _as_autocast_would(x, head)
    return _Loss.apply(x, head.weight, head.bias, targets, head.softcap)


class _Loss(torch.autograd.Function):
    """`loss`, which makes its gradient in the forward pass, while it has a piece's logits."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float
    ) -> Tensor:
        of = _loss_and_gradients
        if torch.compiler.is_compiling():
            of = _uncompiled_loss_and_gradients
        loss, *gradients = of(x, weight, bias, targets, softcap)
        ctx.save_for_backward(*gradients)
        ctx.by_product = x.is_floating_point()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        of_weight, *others = [of * grad.to(of.dtype) for of in ctx.saved_tensors]
        of_x = others.pop(0) if ctx.by_product else None
        of_bias = others.pop(0) if others else None
        return of_x, of_weight, of_bias, None, None


def _loss_and_gradients(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float
) -> list[Tensor]:
    """The loss, (), and its gradients to the weight, to x unless that is ids, and to a bias."""
    head = Head(weight, bias, softcap)
    dtype = _at_least_float32(weight)
    by_product = x.is_floating_point()
    n_targets = (targets != metrics.IGNORE).sum()
    total = torch.zeros((), dtype=dtype, device=x.device)
    of_x = []
    shape = weight.shape[::-1] if by_product else weight.shape  # as the sums below lie
    of_weight = torch.zeros(shape, dtype=dtype, device=x.device)
    of_bias = torch.zeros(len(weight), dtype=dtype, device=x.device)
    for rows, y in _pieces(x, head, targets):  # (n, C), (n,)
        piece_loss, grad = _logit_gradient(head, rows, y, n_targets)
        total += piece_loss
        if bias is not None:
            of_bias += grad.sum(0)
        if by_product:
            grad = grad.to(weight.dtype)  # (n, V)
            of_x.append(F.linear(grad, weight.t()))  # (n, C)
            of_weight += F.linear(rows.t(), grad.t())  # (C, V): the faster way round
        else:
            of_weight.index_add_(0, rows, grad)
        del grad  # before the next piece has logits
    found = [total, (of_weight.t() if by_product else of_weight).to(weight.dtype)]
    if by_product:
        found.append(torch.cat(of_x).view(x.shape))
    if bias is not None:
        found.append(of_bias.to(bias.dtype))
    return found


# To the compiler one operation: it would write out each piece, and take half as long again or more.
_uncompiled_loss_and_gradients = torch.library.custom_op(
    "lm::loss_and_gradients", _loss_and_gradients, mutates_args=()
)


@_uncompiled_loss_and_gradients.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float
) -> list[Tensor]:
    found = [weight.new_empty((), dtype=_at_least_float32(weight))]
    if x.is_floating_point():
        found += [weight.new_empty(weight.shape[::-1]).t(), x.new_empty(x.shape)]
    else:
        found.append(weight.new_empty(weight.shape))
    if bias is not None:
        found.append(torch.empty_like(bias))
    return found


def _logit_gradient(
    head: Head, rows: Tensor, targets: Tensor, n_targets: Tensor
) -> tuple[Tensor, Tensor]:
    """What the rows add to the mean loss of n_targets, (), and its gradient to logits (n, V)."""
    counted = targets != metrics.IGNORE
    at = targets.clamp(min=0)
    places = torch.arange(len(rows), device=rows.device)
    logits = head.logits(rows)  # (n, V)
    ln_p = F.log_softmax(logits, dim=-1)
    loss = -torch.where(counted, ln_p[places, at], 0.0).sum() / n_targets
    grad = ln_p.exp_()
    grad[places, at] -= 1.0
    grad *= (counted.to(grad.dtype) / n_targets)[:, None]
    if head.softcap:
        grad *= 1.0 - (logits / head.softcap).square()
    return loss, grad


def _pieces(x: Tensor, head: Head, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """All rows of x and their targets, (N, C) or ids (N,) and (N,), some at a time."""
    size = sizes(x.device)
    n_rows = max(size.rows, size.piece // len(head.weight))
    x = x.flatten(0, targets.ndim - 1)
    return list(zip(x.split(n_rows), targets.flatten().split(n_rows), strict=True))


def _as_autocast_would(x: Tensor, head: Head) -> tuple[Tensor, Head]:
    """The same rounded to autocast's dtype, where it is on: once, and not for each piece."""
    device = x.device.type
    if not x.is_floating_point() or x.is_meta or not torch.is_autocast_enabled(device):
        return x, head
    dtype = torch.get_autocast_dtype(device)
    bias = None if head.bias is None else head.bias.to(dtype)
    return x.to(dtype), Head(head.weight.to(dtype), bias, head.softcap)


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
