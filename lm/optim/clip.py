"""Gradient clipping: every training here calls it between the backward pass and the optimizer.

norm = clip_gradients(model.parameters(), cfg.train.clip)
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Shorten the gradients in place, so that their norm as one vector is at most `limit`; 0: off.

    Returns the norm before that, (): it is comparable across limits.
    """
    return torch.nn.utils.clip_grad_norm_(parameters, limit or math.inf)
