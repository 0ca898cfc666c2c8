"""One more token a row in shapes that never change: what can be compiled, and replayed on a GPU.

    logits = compiled()(model, ids, positions, kv)      # (B, V), for ids (B, 1)

Transformer.step goes this way where a cache has `compiled` set. On a GPU a step then is one CUDA
graph, which starts as one; the price is that attention reads all of the cache, used or not. On a
CPU it only shows that it is right: lm/models/decode.py is many times faster there.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Slots:
    """The keys and values of a KVCache, `kv` (2, n_layer, B, H, S, D), as a block uses them when
    each row's new token stands at its position, of `positions` (B,)."""

    causal = False

    def __init__(self, kv: Tensor, positions: Tensor):
        self.kv, self.positions = kv, positions
        self.rows = torch.arange(len(positions), device=kv.device)
        slots = torch.arange(kv.shape[-2], device=kv.device)
        self.mask = (slots <= positions[:, None])[:, None, None]  # (B, 1, 1, S): may be looked at

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, H, 1, D) of one layer; return all slots of it, (B, H, S, D)."""
        keys, values = self.kv[0, layer], self.kv[1, layer]
        keys[self.rows, :, self.positions] = k[:, :, 0]
        values[self.rows, :, self.positions] = v[:, :, 0]
        return keys, values


def step(model: nn.Module, ids: Tensor, positions: Tensor, kv: Tensor) -> Tensor:
    """Read ids (B, 1), each row's at its position (B,), into kv; logits (B, V) of what follows."""
    x, rope = model.embed(ids, positions[:, None])
    slots = Slots(kv, positions)
    for block in model.blocks:
        x = block(x, rope, slots)  # (B, 1, C)
    return model.unembed(x[:, 0])


@functools.cache
def compiled() -> Callable[..., Tensor]:
    """`step`, compiled at the first call for each model and number of rows."""
    options = {"triton.cudagraphs": torch.cuda.is_available()}
    return torch.compile(step, dynamic=False, options=options)
