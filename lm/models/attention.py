"""Attention of a transformer: each position takes a weighted mean of what stands before it.

    attn = Attention(cfg, layer=0)
    y = attn(x, rope, cache=None)                 # (B, T, C) -> (B, T, C)

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762. In the shapes: B rows, T positions, C the
width n_embd, H heads of D numbers, G heads of keys and values, S the positions in the cache.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm.config import TransformerConfig
from lm.models.kv_cache import KVCache
from lm.models.parametrization import score_factor
from lm.models.slots import Slots

Rope = tuple[Tensor, Tensor] | Tensor  # cos and sin of the positions at hand, or cos + i sin
Cache = KVCache | Slots
MAX_WRITTEN_OUT = 2048  # positions up to which `attention` beats a CPU's slow kernels
MIN_CHUNK = 256  # queries computed at once there; more where there would be above MAX_CHUNKS
MAX_CHUNKS = 4


class Attention(nn.Module):
    """Causal self-attention, with rotary positions, normalised and shared keys by options."""

    def __init__(self, cfg: TransformerConfig, layer: int):
        super().__init__()
        self.layer = layer  # its place in the cache
        self.n_head = cfg.n_head
        self.n_kv_head = cfg.n_kv_head or cfg.n_head
        self.head_dim = cfg.n_embd // cfg.n_head
        self.qk_norm = cfg.qk_norm
        self.score_factor = score_factor(cfg)  # 1 unless model.base_width is set
        self.p_drop = cfg.dropout
        kv_rows = self.n_kv_head * self.head_dim
        self.qkv_rows = (cfg.n_embd, kv_rows, kv_rows)  # three matrices in one product
        self.qkv = nn.Linear(cfg.n_embd, sum(self.qkv_rows), bias=cfg.bias)
        self.proj = nn.Linear(cfg.n_embd, cfg.n_embd, bias=cfg.bias)

    def forward(self, x: Tensor, rope: Rope | None, cache: Cache | None) -> Tensor:
        B, T, C = x.shape
        H, G, D = self.n_head, self.n_kv_head, self.head_dim
        heads = self.qkv(x).view(B, T, H + 2 * G, D)
        qk, v = heads.split_with_sizes((H + G, G), dim=2)
        if self.qk_norm or rope is not None:
            qk = qk.float()  # angles and norms in full precision, and faster so on a CPU
        if self.qk_norm:
            qk = F.rms_norm(qk, (D,))  # keeps the scores bounded: https://arxiv.org/abs/2010.04245
        if rope is not None:
            qk = rotate(qk, rope)
        qk = qk.type_as(v).transpose(1, 2)  # (B, H + G, T, D)
        q, k = qk.split_with_sizes((H, G), dim=1)  # (B, H, T, D), (B, G, T, D)
        if self.score_factor != 1:
            q = q * self.score_factor
        v = v.transpose(1, 2)  # (B, G, T, D)
        mask = None
        causal = True
        if cache is not None:
            k, v = cache.add(self.layer, k, v)  # (B, G, S, D)
            mask = cache.mask
            causal = cache.causal
        p_drop = self.p_drop if self.training else 0.0
        y = fastest_attention(q, k, v, mask, p_drop, causal)  # (B, H, T, D)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


def attention(q: Tensor, k: Tensor, v: Tensor, p_drop: float = 0.0) -> Tensor:
    """Causal attention, written out: each position takes a weighted mean of the values up to it.

    For q (B, H, T, D), and k and v (B, H, S, D) of the same last T positions and those before.
    F.scaled_dot_product_attention computes the same without storing the (T, S) weights; a test
    holds the two together. The model calls that one where it is the faster: its CPU kernels are
    slow in bfloat16 and with dropout, so there this one trains.
    """
    T, D = q.shape[-2:]
    S = k.shape[-2]
    scores = (q / math.sqrt(D)) @ k.mT  # (B, H, T, S): how well query t matches key s
    never = torch.full((T, S), -math.inf, dtype=q.dtype, device=q.device)
    later = never.triu(S - T + 1)  # -inf where s comes after t, else 0
    weights = (scores + later).softmax(dim=-1)  # each row sums to 1
    if p_drop:
        weights = dropout(weights, p_drop)
    return weights @ v  # (B, H, T, D)


def fastest_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p_drop: float, causal: bool
) -> Tensor:
    """Attention of q (B, H, T, D) to k and v (B, G, S, D), by the fastest kernel for it.

    `mask` (B or 1, 1, T, S) is True where a query may look; with `causal` it looks at what stands
    up to its own position. Each head of k and v serves H / G heads of q. Returns (B, H, T, D).
    """
    H, T = q.shape[1:3]
    slow_kernel = q.device.type == "cpu" and (q.dtype == torch.bfloat16 or p_drop > 0)
    if slow_kernel and causal and mask is None and T <= MAX_WRITTEN_OUT:
        return _attention_in_chunks(q, _repeated(k, H), _repeated(v, H), p_drop)
    if slow_kernel and q.dtype == torch.bfloat16:
        wide = fastest_attention(q.float(), k.float(), v.float(), mask, p_drop, causal)
        return wide.type_as(q)
    if T > 1 and q.is_cuda and (mask is not None or q.dtype == torch.float32):
        # For shared keys a GPU then has no kernel but one that stores all T x S scores.
        k = _repeated(k, H)
        v = _repeated(v, H)
    shared = k.shape[1] < H
    return F.scaled_dot_product_attention(q, k, v, mask, p_drop, causal, enable_gqa=shared)


def _repeated(t: Tensor, n_head: int) -> Tensor:
    """Keys or values (B, G, S, D) as (B, n_head, S, D), one for each head of queries."""
    n_kv_head = t.shape[1]
    if n_kv_head == n_head:
        return t
    return t.repeat_interleave(n_head // n_kv_head, dim=1)


def _attention_in_chunks(q: Tensor, k: Tensor, v: Tensor, p_drop: float) -> Tensor:
    """`attention`, a few queries at a time: each is spared most of the keys behind it."""
    chunk_len = max(MIN_CHUNK, math.ceil(q.shape[2] / MAX_CHUNKS))
    chunks = []
    end = 0
    for chunk in q.split(chunk_len, dim=2):
        end += chunk.shape[2]
        keys = k[:, :, :end]
        values = v[:, :, :end]
        chunks.append(attention(chunk, keys, values, p_drop))
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim=2)


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Turn the pairs (x[2i], x[2i + 1]) of each head by their position's angles (RoPE).

    Su et al. 2021, https://arxiv.org/abs/2104.09864: the product of a turned query and a turned
    key depends on their distance alone. x is (B, T, H, D), cos and sin (T, 1, D/2) or with a B.
    """
    pairs = x.unflatten(-1, (-1, 2))  # (B, T, H, D/2, 2)
    if isinstance(rope, Tensor):  # a complex product turns, too
        turned = torch.view_as_complex(pairs) * rope
        return torch.view_as_real(turned).flatten(-2)
    cos, sin = rope
    a, b = pairs.unbind(-1)  # (B, T, H, D/2) each
    turned_a = a * cos - b * sin
    turned_b = b * cos + a * sin
    return torch.stack((turned_a, turned_b), dim=-1).flatten(-2).type_as(x)


def rope_table(context_len: int, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin (context_len, 1, D/2) of position times frequency; the 1 is for the heads."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    position = torch.arange(context_len, dtype=torch.float64)[:, None, None]
    angle = position * frequency
    return angle.cos().float(), angle.sin().float()


def dropout(x: Tensor, p: float) -> Tensor:
    """F.dropout; on a CPU with p rounded to a 256th, so that 64 random bits serve 8 numbers.

    Drawing for them one by one took more than half of a step.
    """
    if x.device.type != "cpu":
        return F.dropout(x, p)
    n_words = math.ceil(x.numel() / 8)
    words = torch.randint(-(1 << 63), (1 << 63) - 1, (n_words,))  # int64
    octets = words.view(torch.uint8)[: x.numel()]
    draws = octets.view(x.shape).to(x.dtype)  # 0 to 255
    n_dropped = round(256 * p)  # of 256
    kept = (draws - (n_dropped - 1)).clamp(0, 1)  # compiled, a comparison is not vectorised
    return x * (kept * (256 / (256 - n_dropped)))


class Dropout(nn.Dropout):
    """nn.Dropout that draws its numbers as `dropout` does."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x
