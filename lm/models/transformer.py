"""The transformer: every position looks back at all before it, then works alone, n_layer times.

    python -m lm.train model=transformer model.n_layer=6
    python -m lm.train model=gpt2                         # the same class with GPT-2's choices

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762. In the shapes: B rows, T positions, C the
width n_embd, H heads of D numbers, V the vocabulary, S the positions in the cache.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm.models import decode, slots
from lm.models.base import LanguageModel
from lm.models.kv_cache import KVCache

Rope = tuple[Tensor, Tensor] | Tensor  # cos and sin of the positions at hand, or both in one
WRITTEN_OUT = 2048  # positions up to which `attention` beats a CPU's slow kernels
QUERIES = 256  # of them at least in one go, in four at most: each is spared the keys behind it


def dropout(x: Tensor, p: float) -> Tensor:
    """F.dropout; on a CPU with p rounded to a 256th, as then one draw of 64 bits serves 8 numbers:
    drawing them one by one took more than half of a step."""
    if x.device.type != "cpu":
        return F.dropout(x, p)
    bits = torch.randint(-(1 << 63), (1 << 63) - 1, (-(-x.numel() // 8),))  # int64
    n_out = round(256 * p)
    drawn = bits.view(torch.uint8)[: x.numel()].view(x.shape).to(x.dtype)  # 0 to 255
    kept = (drawn - (n_out - 1)).clamp(0, 1)  # a comparison is no vector code when compiled
    return x * (kept * (256 / (256 - n_out)))


def attention(q: Tensor, k: Tensor, v: Tensor, p_drop: float = 0.0) -> Tensor:
    """Causal attention, written out: each position takes a weighted mean of the values up to it.

    For q (B, H, T, D), and k and v (B, H, S, D) of the same last T positions and those before.
    F.scaled_dot_product_attention computes the same without storing the (T, S) weights; a test
    holds the two together. The model calls that one where it is the faster: its CPU kernels are
    slow in bfloat16 and with dropout, so there this one trains.
    """
    (T, D), S = q.shape[-2:], k.shape[-2]
    scores = (q / math.sqrt(D)) @ k.mT  # (B, H, T, S): how well query t matches key s
    later = torch.full((T, S), -math.inf, dtype=q.dtype, device=q.device).triu(S - T + 1)
    weights = (scores + later).softmax(dim=-1)  # each row sums to 1, nothing from behind t
    if p_drop:
        weights = dropout(weights, p_drop)
    return weights @ v  # (B, H, T, D)


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p_drop: float, causal: bool
) -> Tensor:
    """Attention of q (B, H, T, D) to k and v (B, G, S, D), by the fastest kernel for it."""
    H, G, T = q.shape[1], k.shape[1], q.shape[2]
    if G < H and T > 1 and q.is_cuda and (mask is not None or q.dtype == torch.float32):
        # A GPU has no kernel for shared keys then but one that stores all T x S scores.
        k, v = (t.repeat_interleave(H // G, dim=1) for t in (k, v))
        G = H
    slow = q.device.type == "cpu" and (q.dtype == torch.bfloat16 or p_drop > 0)
    if slow and causal and mask is None and T <= WRITTEN_OUT:
        k, v = (t.repeat_interleave(H // G, dim=1) if G < H else t for t in (k, v))
        parts, end = [], 0
        for part in q.split(max(QUERIES, -(-T // 4)), dim=2):
            end += part.shape[2]
            parts.append(attention(part, k[:, :, :end], v[:, :, :end], p_drop))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    if slow and q.dtype == torch.bfloat16:
        wide = fused_attention(q.float(), k.float(), v.float(), mask, p_drop, causal)
        return wide.type_as(q)
    return F.scaled_dot_product_attention(q, k, v, mask, p_drop, causal, enable_gqa=G < H)


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Turn the pairs (x[2i], x[2i + 1]) of each head by their position's angles (RoPE).

    Su et al. 2021, https://arxiv.org/abs/2104.09864: the product of a turned query and a turned
    key depends on their distance alone. x is (B, T, H, D), cos and sin (T, 1, D/2) or with a B.
    """
    pairs = x.unflatten(-1, (-1, 2))  # (B, T, H, D/2, 2)
    if isinstance(rope, Tensor):  # cos + i sin: the same as a complex product
        return torch.view_as_real(torch.view_as_complex(pairs) * rope).flatten(-2)
    (a, b), (cos, sin) = pairs.unbind(-1), rope  # (B, T, H, D/2) each
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2).type_as(x)


def rope_table(context_len: int, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """cos and sin (context_len, 1, D/2) of position times frequency; the 1 is for the heads."""
    frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.arange(context_len, dtype=torch.float64)[:, None, None] * frequency
    return angle.cos().float(), angle.sin().float()


def gelu(x: Tensor) -> Tensor:
    """GPT-2's GELU. A compiler gets 1 + tanh(u) as 2 sigmoid(2u), twice as fast in its kernels."""
    if torch.compiler.is_compiling():
        return x * torch.sigmoid(1.5957691216 * (x + 0.044715 * x * x * x))
    return F.gelu(x, approximate="tanh")


def make_norm(cfg) -> nn.Module:
    if cfg.norm == "layernorm":
        return nn.LayerNorm(cfg.n_embd, eps=cfg.norm_eps, bias=cfg.bias)
    return nn.RMSNorm(cfg.n_embd, eps=cfg.norm_eps)


class Dropout(nn.Dropout):
    """nn.Dropout by way of `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training and self.p else x


class Attention(nn.Module):
    def __init__(self, cfg, layer: int):
        super().__init__()
        self.layer = layer  # its place in the cache
        self.n_head, self.n_kv_head = cfg.n_head, cfg.n_kv_head or cfg.n_head
        self.head_dim = cfg.n_embd // cfg.n_head
        self.qk_norm, self.p_drop = cfg.qk_norm, cfg.dropout
        q_rows, kv_rows = self.n_head * self.head_dim, self.n_kv_head * self.head_dim
        self.qkv_rows = (q_rows, kv_rows, kv_rows)  # three matrices in one product
        self.qkv = nn.Linear(cfg.n_embd, sum(self.qkv_rows), bias=cfg.bias)
        self.proj = nn.Linear(cfg.n_embd, cfg.n_embd, bias=cfg.bias)

    def forward(self, x: Tensor, rope: Rope | None, cache: KVCache | None) -> Tensor:
        B, T, C = x.shape
        H, G, D = self.n_head, self.n_kv_head, self.head_dim  # G heads of keys and values
        qk, v = self.qkv(x).view(B, T, H + 2 * G, D).split_with_sizes((H + G, G), dim=2)
        if self.qk_norm or rope is not None:
            qk = qk.float()  # angles and norms in full precision, and faster so on a CPU
        if self.qk_norm:
            qk = F.rms_norm(qk, (D,))  # keeps the scores bounded: https://arxiv.org/abs/2010.04245
        if rope is not None:
            qk = rotate(qk, rope)
        qk = qk.type_as(v).transpose(1, 2)  # (B, H + G, T, D)
        q, k = qk.split_with_sizes((H, G), dim=1)  # (B, H, T, D), (B, G, T, D)
        v = v.transpose(1, 2)  # (B, G, T, D)
        mask, causal = None, True
        if cache is not None:
            k, v = cache.add(self.layer, k, v)  # (B, G, S, D)
            mask, causal = cache.mask, cache.causal
        p_drop = self.p_drop if self.training else 0.0
        y = fused_attention(q, k, v, mask, p_drop, causal)  # (B, H, T, D)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.activation = cfg.activation
        gated = cfg.activation == "swiglu"
        # Two thirds of 4 n_embd, up to a multiple of 8: the gate then costs no extra weights.
        n_mlp = cfg.n_mlp or (-(-cfg.n_embd // 3) * 8 if gated else 4 * cfg.n_embd)
        self.up_rows = (n_mlp, n_mlp) if gated else (n_mlp,)  # gate and up, in this order
        self.up = nn.Linear(cfg.n_embd, sum(self.up_rows), bias=cfg.bias)
        self.down = nn.Linear(n_mlp, cfg.n_embd, bias=cfg.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)  # (B, T, n_mlp), for swiglu twice as wide
        if self.activation == "swiglu":
            gate, x = x.chunk(2, dim=-1)
            x = F.silu(gate) * x
        elif self.activation == "relu2":
            x = F.relu(x).square()  # So et al. 2021, https://arxiv.org/abs/2109.08668
        else:
            x = gelu(x)
        return self.down(x)  # (B, T, C)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): each part adds to the stream and reads it."""

    def __init__(self, cfg, layer: int):
        super().__init__()
        self.norm_attn, self.attn = make_norm(cfg), Attention(cfg, layer)
        self.norm_mlp, self.mlp = make_norm(cfg), MLP(cfg)
        self.dropout = Dropout(cfg.dropout)

    def forward(self, x: Tensor, rope: Rope | None, cache: KVCache | None) -> Tensor:
        x = x + self.dropout(self.attn(self.norm_attn(x), rope, cache))  # (B, T, C)
        return x + self.dropout(self.mlp(self.norm_mlp(x)))  # (B, T, C)


class Transformer(LanguageModel):
    """Embedding, n_layer blocks, norm, head: GPT-2, Llama and what came since, by options."""

    hidden = ("blocks",)
    low_precision = True

    def __init__(self, cfg, vocab_size: int):
        super().__init__(cfg, vocab_size)
        self.wte = nn.Embedding(vocab_size, cfg.n_embd)
        if cfg.positions == "learned":
            self.wpe = nn.Embedding(cfg.context_len, cfg.n_embd)
        else:
            shape = cfg.context_len, 1, cfg.n_embd // cfg.n_head // 2
            for name in ("cos", "sin"):
                self.register_buffer(name, torch.empty(shape), persistent=False)
        self.dropout = Dropout(cfg.dropout)
        self.blocks = nn.ModuleList(Block(cfg, layer) for layer in range(cfg.n_layer))
        self.norm = make_norm(cfg)
        # A tied head is the embedding's own matrix, used by `unembed`: stored and counted once.
        self.head = None if cfg.tie else nn.Linear(cfg.n_embd, vocab_size, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Small matrices, so that the first loss is near ln V; and the angles of RoPE."""
        cfg = self.cfg
        if cfg.positions == "rope" and not self.cos.is_meta:  # on meta there are shapes alone
            angles = rope_table(cfg.context_len, cfg.n_embd // cfg.n_head, cfg.rope_base)
            self.cos[:], self.sin[:] = angles
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)  # GPT-2's
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            # 2 n_layer outputs add up in the stream: their sum then starts with the size of one.
            for proj in (block.attn.proj, block.mlp.down):
                nn.init.normal_(proj.weight, std=0.02 / math.sqrt(2 * cfg.n_layer))

    def forward(self, ids: Tensor) -> Tensor:
        T = ids.shape[1]
        if self.context_len < T:
            raise ValueError(
                f"{T} tokens are above the model's context_len={self.context_len}: "
                f"give fewer, or train with model.context_len={T}"
            )
        x, rope = self.embed(ids, torch.arange(T, device=ids.device))
        for block in self.blocks:
            x = block(x, rope, None)  # (B, T, C)
        return self.unembed(x)  # (B, T, V)

    def embed(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Rope | None]:
        """The first stream (B, T, C), and the angles of the positions (T,) or (B, T) for RoPE."""
        x = self.wte(ids)  # (B, T, C)
        if self.cfg.positions == "learned":
            return self.dropout(x + self.wpe(positions)), None
        rope: Rope = (self.cos[positions].float(), self.sin[positions].float())
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            rope = torch.complex(*rope)  # one pass over memory instead of six
        return self.dropout(x), rope

    def unembed(self, x: Tensor) -> Tensor:
        """Logits (..., V), float32, as the head reads them from a stream (..., C), of any layer."""
        weight = self.wte.weight if self.head is None else self.head.weight
        logits = F.linear(self.norm(x), weight).float()  # (..., V)
        if cap := self.cfg.softcap:
            logits = cap * torch.tanh(logits / cap)
        return logits

    def start(self, batch_size: int) -> KVCache:
        attn = self.blocks[0].attn
        return KVCache(
            batch_size,
            self.cfg.n_layer,
            attn.n_kv_head,
            self.context_len,
            attn.head_dim,
            like=self.wte.weight,
        )

    @torch.no_grad()
    def step(self, ids: Tensor, state: KVCache, lengths: list[int] | None = None) -> Tensor:
        B, T = ids.shape
        positions = state.open(T)  # (T,), or (B, T) where rows differ
        # A subclass may compute something else: it takes the plain path.
        single = T == 1 and lengths is None and type(self) is Transformer
        if single and state.compiled:
            state.close(None)
            return slots.compiled()(self, ids, positions.flatten().expand(B).clone(), state.kv)
        if single and decode.serves(self):
            state.decoder = state.decoder or decode.Decoder(self, B)
            return state.decoder(ids[:, 0], positions, state)
        x, rope = self.embed(ids, positions)  # (B, T, C)
        for block in self.blocks:
            x = block(x, rope, state)
        state.close(lengths)
        if lengths is None:
            return self.unembed(x[:, -1])  # (B, V)
        return self.unembed(x[torch.arange(B), [n - 1 for n in lengths]])

    def stacked_rows(self) -> dict[str, tuple[int, ...]]:
        rows = {}
        for i, block in enumerate(self.blocks):
            rows[f"blocks.{i}.attn.qkv"] = block.attn.qkv_rows
            if len(block.mlp.up_rows) > 1:
                rows[f"blocks.{i}.mlp.up"] = block.mlp.up_rows
        return rows

    def flops_per_token(self) -> int:
        """6 (matrix weights) + 12 n_layer C context_len: forward and backward (PaLM, appendix B).

        The second term are the two products of attention over the whole context; the causal half
        of it that need not be computed is counted, as everybody does.
        """
        weights = [m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear)]
        head = self.wte.weight.numel() if self.head is None else 0
        return (
            6 * (sum(weights) + head) + 12 * self.cfg.n_layer * self.cfg.n_embd * self.context_len
        )
