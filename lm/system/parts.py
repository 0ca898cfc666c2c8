"""The gradient of a batch in parts, summed in an order that no number of processes changes.

    loss = parts.gradients(loss_fn, model, inputs, targets, n_parts=8, before_part=seed)

A sum of rounded numbers depends on its order, which for an all-reduce depends on the number of
processes. Here a batch has a fixed number of parts, a power of two. Each part's gradient is
computed by itself, and two neighbours are added at a time, as in a tournament: parts to pairs,
pairs to fours. A process owns neighbouring parts, so it adds within one branch of that tree, and
the branches meet between the processes. One process that owns all parts adds the same numbers in
the same order.
"""

# pyright: reportPrivateImportUsage=false
# torch._foreach_*: one call for all parameters, as in lm/optim/muon.py.

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lm.system.ranks import n_proc, rank


class TreeSum:
    """The sum of lists of tensors, added two neighbours at a time.

    Of n lists at most log2(n) + 1 are kept: a sum is added to the one before it as soon as both
    are of equally many lists.
    """

    def __init__(self) -> None:
        self.branches: list[tuple[int, list[Tensor]]] = []  # log2 of the lists in it, and their sum

    def add(self, tensors: list[Tensor]) -> None:
        """Take the next list, which may be overwritten from the second addition on."""
        height = 0
        while self.branches and self.branches[-1][0] == height:
            _, left = self.branches.pop()
            if height == 0:  # two gradients of one backward pass may share their memory
                tensors = list(torch._foreach_add(left, tensors))
            else:
                torch._foreach_add_(left, tensors)
                tensors = left
            height += 1
        self.branches.append((height, tensors))

    def result(self) -> list[Tensor]:
        """The sum of 1, 2, 4, ... lists."""
        ((_, tensors),) = self.branches
        return tensors


def over_ranks(tensors: list[Tensor]) -> list[Tensor]:
    """The sums over 2, 4, 8, ... processes, neighbours first: the same bits on all of them.

    Each process exchanges its sum so far with the neighbouring branch: log2(n_proc) times the
    size of the tensors, which have one dtype.
    """
    if n_proc() == 1:
        return tensors
    total = torch.cat([t.flatten() for t in tensors])
    received = torch.empty_like(total)
    distance = 1
    while distance < n_proc():
        exchange(total, received, other=rank() ^ distance)
        total += received  # a + b has the bits of b + a
        distance *= 2
    pieces = total.split([t.numel() for t in tensors])
    return [piece.view(t.shape) for piece, t in zip(pieces, tensors, strict=True)]


def exchange(mine: Tensor, theirs: Tensor, other: int) -> None:
    """Send `mine` to the process of rank `other`, and fill `theirs` with what it sends."""
    both = [dist.P2POp(dist.isend, mine, other), dist.P2POp(dist.irecv, theirs, other)]
    for request in dist.batch_isend_irecv(both):
        request.wait()


def mean(value: Tensor) -> Tensor:
    """The mean over 2, 4, 8, ... processes: of equal values that value, to the bit."""
    (total,) = over_ranks([value])
    return total / n_proc()


def gradients(
    loss_fn: nn.Module,
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    n_parts: int,
    before_part: Callable[[int], None],
) -> Tensor:
    """Leave the batch's gradients in the parameters of the model; return its mean loss, ().

    `inputs` and `targets` (B / n_proc, T) are this process's rows of the batch, which has `n_parts`
    parts on all processes together. `before_part` is called with the number of each part of its
    own. The gradients (float32, as the parameters) and the loss have the same bits on all processes
    and on any number of them. A parameter that has no part in the loss has zeros.
    """
    n_own = n_parts // n_proc()
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = TreeSum()
    rows = zip(inputs.chunk(n_own), targets.chunk(n_own), strict=True)
    for part, (x, y) in enumerate(rows, start=rank() * n_own):
        before_part(part)
        # Copies lie alike in memory, whichever process has the part.
        loss = loss_fn(x.clone(), y.clone()) / n_parts
        grads = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        total.add([loss.detach(), *grads])
    loss, *grads = over_ranks(total.result())
    # Not p.grad = grad: this way hooks see the gradient, once, and it lies in memory as p does.
    torch.autograd.backward(parameters, grads)
    return loss
