"""Muon: momentum, made orthogonal. Every direction of a hidden matrix moves by the same amount.

    Muon([{"params": matrices, "parts": None}], lr=0.02, momentum=0.95, weight_decay=0.0)

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. For hidden matrices only: not for
embeddings, heads, gains or biases.
"""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*: one call for all parameters; PyTorch's own optimizers use them, nothing public
# does the same.

import math
from collections import defaultdict
from typing import NamedTuple

import torch
from torch import Tensor


def orthogonalize(m: Tensor, n_round: int = 5) -> Tensor:
    """Near-orthogonal matrices with the singular vectors of m (..., R, C); m is left as it was.

    Quintic Newton-Schulz. It does not converge: most singular values land in 0.7 to 1.2, very
    small ones stay lower.
    """
    tall = m.shape[-2] > m.shape[-1]
    x = m.mT if tall else m  # fewer rows than columns: the products below are then the small ones
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # no singular value above 1
    x = x.reshape(-1, *x.shape[-2:])  # (N, R, C), for the products that add in the same pass
    for _ in range(n_round):
        gram = x @ x.mT  # (N, R, R)
        # The coefficients have the steepest slope at 0 that still stays bounded near 1:
        # x <- 3.4445 x + (-4.7750 gram + 2.0315 gram gram) x
        poly = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, poly, x, beta=3.4445)
    x = x.mT if tall else x
    return x.reshape(m.shape)


class Move(NamedTuple):
    """One matrix and where it is to go, both turned to have no more rows than columns."""

    weight: Tensor  # a view of the parameter
    direction: Tensor  # not orthogonal yet
    size: float  # spectral norm of the update


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum whose update of each matrix is orthogonalized.

    `lr` is the spectral norm of the update of a matrix with no more rows than columns; taller
    ones get sqrt(rows / columns) of it. A group's `parts` are row counts: the matrices of that
    group are stacks of independent ones (queries, keys, values) and each counts by itself.
    `dtype` is the type in which updates are orthogonalized: bfloat16 is enough (Jordan).
    Where the attribute `found_inf`, a tensor, is 1, a step changes nothing; PyTorch's fused
    optimizers have it too. The number is not read back from the device.
    """

    reads_found_inf = True
    found_inf: Tensor | None = None

    def __init__(
        self,
        groups: list[dict[str, object]],
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        done = 1.0 if self.found_inf is None else 1.0 - self.found_inf  # 0: change nothing
        by_shape: dict[tuple[torch.Size, torch.device], list[Move]] = defaultdict(list)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            directions = self._nesterov(params, group["momentum"])
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - done * group["lr"] * group["weight_decay"])
            for p, direction in zip(params, directions, strict=True):
                for move in _split(p, direction, group["parts"], group["lr"]):
                    by_shape[move.direction.shape, move.direction.device].append(move)
        for moves in by_shape.values():
            # One batched product for all matrices of a shape: small ones cost mostly their calls.
            directions = torch.stack([move.direction for move in moves])  # (N, R, C)
            updates = orthogonalize(directions.to(self.dtype))
            if self.found_inf is not None:
                updates = updates * done
            for move, update in zip(moves, updates.unbind(), strict=True):
                move.weight.add_(update, alpha=-move.size)

    def _nesterov(self, params: list[Tensor], momentum: float) -> list[Tensor]:
        """Add the gradients to their running averages; the averages as the next step sees them."""
        averages = []
        gradients = []
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            average = state["momentum"]
            gradient = p.grad
            assert gradient is not None
            if self.found_inf is not None:  # a gradient equal to its average leaves that as it was
                gradient = gradient.where(self.found_inf == 0, average)
            averages.append(average)
            gradients.append(gradient)
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, averages, momentum))


def _split(p: Tensor, direction: Tensor, parts: tuple[int, ...] | None, lr: float) -> list[Move]:
    """The independent matrices that the parameter p (R, C) is a stack of; `parts`: their rows."""
    rows = parts or (len(p),)
    moves = []
    for weight, update in zip(p.split(rows), direction.split(rows), strict=True):
        R, C = weight.shape
        size = lr * math.sqrt(max(1.0, R / C))
        if R > C:  # a tall matrix shares its batch with wide ones
            weight = weight.mT
            update = update.mT
        moves.append(Move(weight, update, size))
    return moves
