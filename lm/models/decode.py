"""One more token a row, on a CPU: what Transformer.step computes, in few large operations.

    decoder = Decoder(model, batch_size)
    logits = decoder(ids, cache.open(1), cache)     # (B, V), for ids (B,)

At such sizes a step costs what calling its operations costs, and reading the weights once. So this
path calls no modules, takes the cache of all layers apart at once, and lets oneDNN order the
weights as it likes them. A test holds it together with the plain path, for every option.
"""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm.models.kv_cache import KVCache

Function = Callable[[Tensor], Tensor]
# Multiplications from which on oneDNN's product pays: its call costs 10 us more than MKL's, and
# on weights in its own order it is up to twice as fast.
REORDER = 700_000
OUTGROWN = 8_000_000  # weights that no cache holds: read from memory, that order is the faster too


def serves(model: nn.Module) -> bool:
    """Whether the model is where and what this path is written for: float32 on a CPU."""
    weight = model.wte.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and not model.training


class Layer:
    """The parts of one block as functions of x (B, C)."""

    def __init__(self, block: nn.Module, linear: Callable):
        self.norm_attn, self.norm_mlp = norm(block.norm_attn), norm(block.norm_mlp)
        self.qkv, self.proj = linear(block.attn.qkv), linear(block.attn.proj)
        self.mlp = mlp(block.mlp, linear)


class Decoder:
    """A transformer's weights made ready for one token a row, and the loop over its layers."""

    def __init__(self, model: nn.Module, batch_size: int):
        cfg, attn = model.cfg, model.blocks[0].attn
        self.n_head, self.n_kv_head, self.head_dim = attn.n_head, attn.n_kv_head, attn.head_dim
        self.softcap = cfg.softcap
        self.qk_norm = rms_norm(attn.head_dim, None, torch.ones(1)) if cfg.qk_norm else None
        self.wte = model.wte.weight
        self.wpe = model.wpe.weight if cfg.positions == "learned" else None
        self.turns = None if self.wpe is not None else torch.complex(model.cos, model.sin)
        reorder = 0 if model.n_params() >= OUTGROWN else REORDER
        linear = functools.partial(ordered_linear, batch_size=batch_size, reorder=reorder)
        self.layers = [Layer(block, linear) for block in model.blocks]
        self.norm = norm(model.norm)
        self.head = linear(model.wte if model.head is None else model.head)

    def __call__(self, ids: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
        B, H, G, D = len(ids), self.n_head, self.n_kv_head, self.head_dim
        x = self.wte[ids]  # (B, C)
        if self.wpe is not None:
            x = x + self.wpe[positions.flatten()]
        else:
            turns = self.turns[positions.flatten()]  # (1 or B, 1, D/2), complex
        for i, (keys, values) in enumerate(cache.layers()):
            layer = self.layers[i]
            heads = layer.qkv(layer.norm_attn(x)).view(B, H + 2 * G, D)
            qk, v = heads.split_with_sizes((H + G, G), dim=1)
            if self.qk_norm is not None:
                qk = self.qk_norm(qk)
            if self.wpe is None:
                pairs = torch.view_as_complex(qk.unflatten(-1, (-1, 2)))  # (B, H + G, D/2)
                qk = torch.view_as_real(pairs * turns).flatten(-2)
            q, k = qk.split_with_sizes((H, G), dim=1)
            cache.write(i, k, v)
            # The heads of q that share keys are the rows of one product: no key is read twice.
            q = q.reshape(B * G, H // G, D)
            scores = torch.baddbmm(cache.bias, q, keys, alpha=D**-0.5)  # (B G, H / G, S)
            y = torch.bmm(scores.softmax(dim=-1), values).view(B, H * D)
            x = x + layer.proj(y)
            x = x + layer.mlp(layer.norm_mlp(x))
        cache.close(None)
        logits = self.head(self.norm(x))
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits


def norm(module: nn.Module) -> Function:
    if isinstance(module, nn.LayerNorm):
        shape, eps = module.normalized_shape, module.eps
        return lambda x: torch.layer_norm(x, shape, module.weight, module.bias, eps)
    return rms_norm(module.normalized_shape[0], module.eps, module.weight)


def rms_norm(n: int, eps: float | None, gain: Tensor) -> Function:
    """F.rms_norm of n numbers by the length of the vector: half of its time."""
    floor = torch.tensor(math.sqrt(n * (eps or torch.finfo(gain.dtype).eps)))
    gain = gain * math.sqrt(n)

    def normed(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x / torch.hypot(length, floor)).mul_(gain)

    return normed


def mlp(module: nn.Module, linear: Callable) -> Function:
    kind = module.activation
    up, down = linear(module.up, gelu=kind == "gelu"), linear(module.down)
    if kind == "gelu":
        return lambda x: down(up(x))
    if kind == "relu2":
        return lambda x: down(up(x).relu_().square_())

    def swiglu(x: Tensor) -> Tensor:
        gate, x = up(x).chunk(2, dim=-1)
        return down(F.silu(gate).mul_(x))

    return swiglu


def ordered_linear(
    module: nn.Module, batch_size: int, reorder: int, gelu: bool = False
) -> Function:
    """x (B, in) -> (B, out) on a copy of the weights in the order that is read fastest."""
    weight, bias = module.weight.detach(), getattr(module, "bias", None)
    if batch_size * weight.numel() >= reorder and torch.backends.mkldnn.is_available():
        ordered = torch.ops.mkldnn._reorder_linear_weight(weight, batch_size)
        product, after = torch.ops.mkldnn._linear_pointwise, ("none", [], "")
        after = ("gelu", [], "tanh") if gelu else after
        return lambda x: product(x, ordered, bias, *after)
    columns = weight.t().contiguous()
    bias = weight.new_zeros(1) if bias is None else bias.detach()
    if gelu:
        return lambda x: F.gelu(torch.addmm(bias, x, columns), approximate="tanh")
    return lambda x: torch.addmm(bias, x, columns)
