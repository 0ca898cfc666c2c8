"""Muon: momentum, made orthogonal. Every direction of a hidden matrix moves by the same amount.

    Muon([{"params": matrices, "parts": None}], lr=0.02, momentum=0.95, weight_decay=0.0)

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. For hidden matrices only: not for
embeddings, heads, gains or biases.
"""

import math
from collections import defaultdict

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
    return (x.mT if tall else x).reshape(m.shape)


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum whose update of each matrix is orthogonalized.

    `lr` is the spectral norm of the update of a matrix with no more rows than columns; taller
    ones get sqrt(rows / columns) of it. A group's `parts` are row counts: the matrices of that
    group are stacks of independent ones (queries, keys, values) and each counts by itself.
    `number` is the type in which updates are orthogonalized: bfloat16 is enough (Jordan).
    Where the attribute `found_inf`, a tensor, is 1, a step changes nothing; PyTorch's fused
    optimizers have it too. The number is not read back from the device.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        groups: list[dict],
        lr: float,
        momentum: float,
        weight_decay: float,
        number: torch.dtype = torch.float32,
    ):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.number = number

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        found, done = self.found_inf, 1.0 if self.found_inf is None else 1.0 - self.found_inf
        alike: dict[tuple, list[tuple[Tensor, Tensor, float]]] = defaultdict(list)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            grads = [p.grad for p in params]
            momenta = [self.state[p]["momentum"] for p in params]
            if found is not None:  # a gradient that is the momentum leaves it as it was
                grads = [g.where(found == 0, m) for g, m in zip(grads, momenta, strict=True)]
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(
                grads, momenta, group["momentum"]
            )  # Nesterov: looks ahead
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - done * group["lr"] * group["weight_decay"])
            for p, update in zip(params, updates, strict=True):
                rows = group["parts"] or (len(p),)
                for part, u in zip(p.split(rows), update.split(rows), strict=True):
                    R, C = part.shape
                    size = group["lr"] * math.sqrt(max(1.0, R / C))
                    flat = u.mT if R > C else u  # a tall matrix shares its batch with wide ones
                    alike[flat.shape, flat.device].append((part.mT if R > C else part, flat, size))
        for matrices in alike.values():
            # One batched product for all matrices of a shape: small ones cost mostly their calls.
            turned = orthogonalize(torch.stack([u for _, u, _ in matrices]).to(self.number))
            turned = turned if found is None else turned * done
            for (part, _, size), update in zip(matrices, turned.unbind(), strict=True):
                part.add_(update, alpha=-size)
