"""One more token a row, on a CPU: what Transformer.step computes, in few large operations.

    decoder = Decoder(model, batch_size)
    logits = decoder(ids, cache.open(1), cache)     # (B, V), for ids (B,)

At such sizes a step costs what calling its operations costs, and reading the weights once. So this
path calls no modules, takes the cache of all layers apart at once, and lets oneDNN order the
weights as it likes them. A test holds it together with the plain path, for every option.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm.models.kv_cache import KVCache
from lm.models.parametrization import score_factor
from lm.system import onednn

if TYPE_CHECKING:
    from lm.models.transformer import MLP, Block, Transformer

Function = Callable[[Tensor], Tensor]
# Multiplications from which on oneDNN's product pays: its call costs 10 us more than MKL's, and
# on weights in its own order it is up to twice as fast.
MIN_REORDERED = 700_000
LARGE_MODEL = 8_000_000  # weights that no cache holds: from memory, oneDNN's order always pays


def serves(model: "Transformer") -> bool:
    """Whether the model is where and what this path is written for: float32 on a CPU."""
    weight = model.wte.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and not model.training


class Products:
    """Linear layers as functions x (B, in) -> (B, out), on copies of their weights."""

    def __init__(self, model: "Transformer", batch_size: int):
        self.batch_size = batch_size
        large = model.n_params() >= LARGE_MODEL
        self.min_reordered = 0 if large else MIN_REORDERED

    def of(self, module: nn.Linear | nn.Embedding, gelu: bool = False) -> Function:
        """The product of one layer, in the order that is read fastest; `gelu` comes after it."""
        weight = module.weight.detach()
        bias = module.bias if isinstance(module, nn.Linear) else None
        large = self.batch_size * weight.numel() >= self.min_reordered
        if large and torch.backends.mkldnn.is_available():
            return onednn.reordered(weight, bias, self.batch_size, gelu)
        columns = weight.t().contiguous()
        offset = weight.new_zeros(1) if bias is None else bias.detach()
        if gelu:
            return lambda x: F.gelu(torch.addmm(offset, x, columns), approximate="tanh")
        return lambda x: torch.addmm(offset, x, columns)


class Layer:
    """The parts of one block as functions of x (B, C)."""

    def __init__(self, block: "Block", products: Products):
        self.norm_attn = norm(block.norm_attn)
        self.norm_mlp = norm(block.norm_mlp)
        self.qkv = products.of(block.attn.qkv)
        self.proj = products.of(block.attn.proj)
        self.mlp = mlp(block.mlp, products)


class Decoder:
    """A transformer's weights made ready for one token a row, and the loop over its layers."""

    def __init__(self, model: "Transformer", batch_size: int):
        cfg = model.cfg
        self.n_head = cfg.n_head
        self.n_kv_head = cfg.n_kv_head or cfg.n_head
        self.head_dim = cfg.n_embd // cfg.n_head
        self.score_scale = self.head_dim**-0.5 * score_factor(cfg)
        self.softcap = cfg.softcap
        self.qk_norm = rms_norm(self.head_dim, None, torch.ones(1)) if cfg.qk_norm else None
        self.embed_norm: Function | None = None
        if cfg.embed_norm:
            self.embed_norm = rms_norm(cfg.n_embd, cfg.norm_eps, torch.ones(1))
        self.wte = model.wte.weight
        self.wpe: Tensor | None = None  # either learned positions ...
        self.turns: Tensor | None = None  # ... or the rotations of RoPE, complex
        if cfg.positions == "learned":
            self.wpe = model.wpe.weight
        else:
            self.turns = torch.complex(model.cos, model.sin)
        products = Products(model, batch_size)
        blocks = cast("Iterable[Block]", model.blocks)
        self.layers = [Layer(block, products) for block in blocks]
        self.norm = norm(model.norm)
        self.head = products.of(model.wte if model.head is None else model.head)

    def __call__(self, ids: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
        B = len(ids)
        H, G, D = self.n_head, self.n_kv_head, self.head_dim
        x = self.wte[ids]  # (B, C)
        turns = None
        if self.wpe is not None:
            x = x + self.wpe[positions.flatten()]
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        if self.turns is not None:
            turns = self.turns[positions.flatten()]  # (1 or B, 1, D/2)
        for i, (keys, values) in enumerate(cache.layers()):
            layer = self.layers[i]
            heads = layer.qkv(layer.norm_attn(x)).view(B, H + 2 * G, D)
            qk, v = heads.split_with_sizes((H + G, G), dim=1)
            if self.qk_norm is not None:
                qk = self.qk_norm(qk)
            if turns is not None:
                pairs = torch.view_as_complex(qk.unflatten(-1, (-1, 2)))  # (B, H + G, D/2)
                qk = torch.view_as_real(pairs * turns).flatten(-2)
            q, k = qk.split_with_sizes((H, G), dim=1)
            cache.write(i, k, v)
            # The heads of q that share keys are the rows of one product: no key is read twice.
            q = q.reshape(B * G, H // G, D)
            scores = torch.baddbmm(cache.bias, q, keys, alpha=self.score_scale)  # (B G, H / G, S)
            y = torch.bmm(scores.softmax(dim=-1), values).view(B, H * D)
            x = x + layer.proj(y)
            x = x + layer.mlp(layer.norm_mlp(x))
        cache.close(None)
        logits = self.head(self.norm(x))  # (B, V)
        if self.softcap:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits


def norm(module: nn.LayerNorm | nn.RMSNorm) -> Function:
    """The norm of vectors (B, C) as a function."""
    if isinstance(module, nn.RMSNorm):
        return rms_norm(module.normalized_shape[0], module.eps, module.weight)
    shape = module.normalized_shape
    eps = module.eps
    return lambda x: torch.layer_norm(x, shape, module.weight, module.bias, eps)


def rms_norm(n: int, eps: float | None, gain: Tensor) -> Function:
    """F.rms_norm of n numbers by the length of the vector: half of its time."""
    if not eps:
        eps = torch.finfo(gain.dtype).eps
    shortest = torch.tensor(math.sqrt(n * eps))
    gain = gain * math.sqrt(n)

    def normed(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x / torch.hypot(length, shortest)).mul_(gain)

    return normed


def mlp(module: "MLP", products: Products) -> Function:
    """A block's MLP as a function of x (B, C)."""
    is_gelu = module.activation == "gelu"
    up = products.of(module.up, gelu=is_gelu)
    down = products.of(module.down)
    if is_gelu:  # computed within the product by `up`
        return lambda x: down(up(x))
    between = module.between
    return lambda x: down(between(up(x)))
