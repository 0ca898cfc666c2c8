"""Attention maps, recomputed by the plain softmax from what went into PyTorch's fused kernel.

The kernel never forms the map. It is computed here from the same queries and keys, and its result
checked against what came out of the kernel.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.lens.tracing import Attention, Step


@dataclass
class KernelInputs:
    """What goes into the fused kernel: S positions that are looked at by T that look.

    Where key and value have fewer heads (G) than query (H), each of them serves several
    neighbouring heads.
    """

    query: Tensor  # (B, H, T, D)
    key: Tensor  # (B, G, S, D)
    value: Tensor  # (B, G, S, D)
    mask: Tensor | None
    is_causal: bool
    scale: float | None


def recomputed(path: str, inputs: KernelInputs, out: Tensor) -> Attention:
    """The attention of the module at `path`, whose fused kernel gave `out` (B, H, T, D).

    Raises AssertionError if the plain softmax gives something else. Where one of both is infinite
    or NaN nothing is compared, and the error is NaN.
    """
    scores, weights, values, mixed = plain_attention(inputs)
    error = (mixed - out.float()).abs().max().item()
    is_close = torch.allclose(mixed, out.float(), rtol=1e-4, atol=1e-5)
    if not math.isfinite(error):
        error = math.nan
    elif inputs.query.dtype == torch.float32:
        assert is_close, (
            f"attention of {path}: the plain softmax differs from the kernel by {error}"
        )
    return Attention(path, weights, values, scores, error)


def plain_attention(inputs: KernelInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores and weights (B, H, T, S), values (B, H, S, D) and weights times values (B, H, T, D),
    in float32."""
    n_shared = inputs.query.shape[-3] // inputs.key.shape[-3]
    query = inputs.query.float()
    key = inputs.key.float().repeat_interleave(n_shared, dim=-3)  # (B, H, S, D)
    value = inputs.value.float().repeat_interleave(n_shared, dim=-3)
    mask = inputs.mask
    scores = query @ key.mT * (inputs.scale or 1 / math.sqrt(query.shape[-1]))  # (B, H, T, S)
    if inputs.is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    weights = scores.softmax(dim=-1)
    return scores, weights, value, weights @ value


def note_projection(steps: list[Step], path: str, inputs: KernelInputs) -> None:
    """Say at the last step inside `path` that one matrix gave query, key and value, if it did."""
    D = inputs.query.shape[-1]
    n_query = inputs.query.shape[-3] * D
    n_key = inputs.key.shape[-3] * D
    inside = [step for step in steps if step.path.startswith(f"{path}.")]
    if not inside:
        return
    last = inside[-1]
    if last.output[-1] == n_query + 2 * n_key:
        of_key = f"{n_key:,} for the key, {n_key:,} for the value"
        last.note = f"{n_query:,} numbers for the query, {of_key}"


def inner_steps(
    found: Attention, inputs: KernelInputs, out: Tensor, flops: int
) -> list[tuple[Step, Tensor, list[Tensor]]]:
    """What the fused kernel does in one go, as six steps: each with what it gives and reads.

    `flops` is the cost of them all.
    """
    H = inputs.query.shape[-3]  # heads of queries
    G = inputs.key.shape[-3]  # heads of keys and values
    D = inputs.query.shape[-1]
    queries = tuple(inputs.query.shape)
    keys = tuple(inputs.key.shape)  # and those of the values
    assert found.scores is not None, "the plain softmax gave them"
    scores = tuple(found.scores.shape)
    of_query = f"the {H * D:,} numbers of a position, as {H} heads of {D:,}"
    of_key = f"the {G * D:,} numbers of a position, as {G} heads of {D:,}"
    masked = "; a later one is masked" if inputs.is_causal else ""
    of_scores = f"a row for each position that looks, a column for each it looks at{masked}"
    of_softmax = "each row becomes shares that sum to 1"
    half = flops // 2
    path = found.path
    query = Step(path, "query", [], queries, note=of_query)
    key = Step(path, "key", [], keys, note=of_key)
    value = Step(path, "value", [], keys, note=of_key)
    score = Step(path, "scores", [queries, keys], scores, flops=half, note=of_scores)
    score.constants = {"scale": inputs.scale or 1 / math.sqrt(D)}
    softmax = Step(path, "softmax", [scores], scores, note=of_softmax)
    mixed = Step(path, "weighted sum", [scores, keys], tuple(out.shape), flops=flops - half)
    return [
        (query, inputs.query, []),
        (key, inputs.key, []),
        (value, inputs.value, []),
        (score, found.scores, [inputs.query, inputs.key]),
        (softmax, found.weights, [found.scores]),
        (mixed, out, [found.weights, inputs.value]),
    ]
