"""One more token a row in shapes that never change: what can be compiled, and replayed on a GPU.

    logits = Slots.compiled_step()(model, ids, positions, kv)      # (B, V), for ids (B, 1)

Transformer.step goes this way where a cache has `compiled` set.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lm.models.transformer import Transformer


class Slots:
    """All keys and values of a KVCache, each row's new token at its position. Not yet run on a GPU.

    There a step is one CUDA graph, which starts as one; the price is that attention reads all of
    the cache, used or not. On a CPU the step only shows that it is right: lm/models/decode.py is
    many times faster there. `kv` is (2, n_layer, B, H, S, D), `positions` (B,).
    """

    causal = False

    def __init__(self, kv: Tensor, positions: Tensor):
        self.kv = kv
        self.positions = positions
        self.rows = torch.arange(len(positions), device=kv.device)
        slots = torch.arange(kv.shape[-2], device=kv.device)
        self.mask = (slots <= positions[:, None])[:, None, None]  # (B, 1, 1, S): may be looked at

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, H, 1, D) of one layer; return all slots of it, (B, H, S, D)."""
        keys = self.kv[0, layer]
        values = self.kv[1, layer]
        keys[self.rows, :, self.positions] = k[:, :, 0]
        values[self.rows, :, self.positions] = v[:, :, 0]
        return keys, values

    @staticmethod
    def step(model: "Transformer", ids: Tensor, positions: Tensor, kv: Tensor) -> Tensor:
        """Read ids (B, 1) at the positions (B,) of their rows into kv; logits (B, V) after them."""
        x, rope = model.embed(ids, positions[:, None])
        slots = Slots(kv, positions)
        for block in model.blocks:
            x = block(x, rope, slots)  # (B, 1, C)
        return model.unembed(x[:, 0])

    @staticmethod
    @functools.cache
    def compiled_step() -> Callable[["Transformer", Tensor, Tensor, Tensor], Tensor]:
        """`step`, compiled at the first call for each model and number of rows."""
        graphs = torch.cuda.is_available()
        return torch.compile(Slots.step, dynamic=False, options={"triton.cudagraphs": graphs})

    @staticmethod
    def keep_address(kv: Tensor) -> None:
        """Promise that kv stays where it is: a CUDA graph writes where it wrote before."""
        torch._dynamo.mark_static_address(kv)  # torch.compiler has no name for it
