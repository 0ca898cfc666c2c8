"""Next-token loss in nats, perplexity, bits per byte: each one a function of sums.

total = nats(logits, targets)                       # one number per target
bits_per_byte(total.sum().item(), n_bytes)
"""

import math

import torch
import torch.nn.functional as F

IGNORE = -1  # a target that does not count: padding behind the end of the text


def nats(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-ln p(target) for logits (B, T, V) and targets (B, T), as (B, T); 0 where IGNORE."""
    flat = F.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORE, reduction="none"
    )
    return flat.view(targets.shape)


def next_token_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean of `nats` over the targets that count: the loss that training minimises."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORE)


def perplexity(mean_nats: float) -> float:
    """exp of the mean loss: the number of equally likely next tokens that would be as hard."""
    try:
        return math.exp(mean_nats)
    except OverflowError:
        return math.inf


def bits_per_byte(total_nats: float, n_bytes: int) -> float:
    """Code length in bits per UTF-8 byte: comparable across tokenizers, unlike perplexity.

    `total_nats` is the loss summed over target tokens, `n_bytes` the bytes those tokens decode
    to; special tokens are left out of both. Raises ValueError if n_bytes is 0.
    """
    if n_bytes == 0:
        raise ValueError("bits per byte of no bytes: the text has only special tokens")
    return total_nats / math.log(2) / n_bytes
