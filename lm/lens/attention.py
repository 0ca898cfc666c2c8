"""Attention maps, recomputed by the plain softmax from what went into PyTorch's fused kernel.

The kernel never forms the map. It is computed here from the same queries and keys, and its result
checked against what came out of the kernel.
"""

import math

import torch
from torch import Tensor

from lm.lens.tracing import Attention, Step


def recomputed(
    path: str,
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
) -> Attention:
    """The attention of the module at `path`, whose fused kernel gave `out` (B, H, T, D).

    Raises AssertionError if the plain softmax gives something else. Where one of both is infinite
    or NaN nothing is compared, and the error is NaN.
    """
    weights, values, mixed = plain_attention(
        query.float(), key.float(), value.float(), mask, is_causal, scale
    )
    error = (mixed - out.float()).abs().max().item()
    is_close = torch.allclose(mixed, out.float(), rtol=1e-4, atol=1e-5)
    if not math.isfinite(error):
        error = math.nan
    elif query.dtype == torch.float32:
        assert is_close, (
            f"attention of {path}: the plain softmax differs from the kernel by {error}"
        )
    return Attention(path, weights, values, error)


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (B, H, T, S), values (B, H, S, D) and their products (B, H, T, D), written out.

    Where key and value have fewer heads than query, each of them serves several neighbouring heads.
    """
    n_shared = query.shape[-3] // key.shape[-3]
    key = key.repeat_interleave(n_shared, dim=-3)  # (B, H, S, D)
    value = value.repeat_interleave(n_shared, dim=-3)
    scores = query @ key.mT * (scale or 1 / math.sqrt(query.shape[-1]))  # (B, H, T, S)
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    weights = scores.softmax(dim=-1)
    return weights, value, weights @ value


def note_projection(steps: list[Step], path: str, query: Tensor, key: Tensor) -> None:
    """Say at the last step inside `path` that one matrix gave query, key and value, if it did."""
    n_query = query.shape[-3] * query.shape[-1]
    n_key = key.shape[-3] * query.shape[-1]
    inside = [step for step in steps if step.path.startswith(f"{path}.")]
    if inside and inside[-1].output[-1] == n_query + 2 * n_key:
        inside[
            -1
        ].note = (
            f"{n_query:,} numbers for the query, {n_key:,} for the key, {n_key:,} for the value"
        )


def inner_steps(
    found: Attention, out: Tensor, query: Tensor, key: Tensor, flops: int, is_causal: bool
) -> list[Step]:
    """What the fused kernel does in one go, as six steps; `flops` is the cost of them all."""
    H, G = query.shape[-3], key.shape[-3]  # heads of queries, and of keys and values
    D = query.shape[-1]
    queries = tuple(query.shape)
    keys = tuple(key.shape)  # and those of the values
    scores = tuple(found.weights.shape)
    of_query = f"the {H * D:,} numbers of a position, as {H} heads of {D:,}"
    of_key = f"the {G * D:,} numbers of a position, as {G} heads of {D:,}"
    masked = "; a later one is masked" if is_causal else ""
    of_scores = f"a row for each position that looks, a column for each it looks at{masked}"
    of_softmax = "each row becomes shares that sum to 1"
    half = flops // 2
    path = found.path
    return [
        Step(path, "query", [], queries, note=of_query),
        Step(path, "key", [], keys, note=of_key),
        Step(path, "value", [], keys, note=of_key),
        Step(path, "scores", [queries, keys], scores, flops=half, note=of_scores),
        Step(path, "softmax", [scores], scores, note=of_softmax),
        Step(path, "weighted sum", [scores, keys], tuple(out.shape), flops=flops - half),
    ]
