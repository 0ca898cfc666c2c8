"""The transformer: every position looks back at all before it, then works alone, n_layer times.

    python -m lm.train model=transformer model.n_layer=6
    python -m lm.train model=gpt2                         # the same class with GPT-2's choices

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762. In the shapes: B rows, T positions, C the
width n_embd, D = C / n_head the width of a head, V the vocabulary. How positions look back is in
lm/models/attention.py.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm.config import TransformerConfig
from lm.models import decode
from lm.models.attention import Attention, Cache, Dropout, Rope, rope_table
from lm.models.base import LanguageModel
from lm.models.head_loss import Head
from lm.models.kv_cache import KVCache
from lm.models.slots import Slots
from lm.system.errors import no_code_for


class Transformer(LanguageModel):
    """Embedding, n_layer blocks, norm, head: GPT-2, Llama and what came since, by options."""

    cfg: TransformerConfig
    hidden = ("blocks",)
    branches = ("attn.proj", "mlp.down")
    starts_by_fan_in = False
    low_precision = True
    cos: Tensor  # (context_len, 1, D/2), where positions are rotary
    sin: Tensor

    def __init__(self, cfg: TransformerConfig, vocab_size: int):
        super().__init__(cfg, vocab_size)
        self.wte = nn.Embedding(vocab_size, cfg.n_embd)
        if cfg.positions == "learned":
            self.wpe = nn.Embedding(cfg.context_len, cfg.n_embd)
        elif cfg.positions == "rope":
            n_angles = cfg.n_embd // cfg.n_head // 2
            for name in ("cos", "sin"):
                table = torch.empty(cfg.context_len, 1, n_angles)
                self.register_buffer(name, table, persistent=False)
        else:
            raise no_code_for("model.positions", cfg.positions)
        self.dropout = Dropout(cfg.dropout)
        self.blocks = nn.ModuleList(Block(cfg, layer) for layer in range(cfg.n_layer))
        self.norm = make_norm(cfg)
        # A tied head is the embedding's own matrix, used by `unembed`: stored and counted once.
        self.head = None if cfg.tie else nn.Linear(cfg.n_embd, vocab_size, bias=False)
        self.readout = "norm" if cfg.tie else "head"
        self.init_weights()
        self.scale_init()

    def init_weights(self) -> None:
        """Small matrices, so that the first loss is near ln V; and the angles of RoPE."""
        cfg = self.cfg
        if cfg.positions == "rope" and not self.cos.is_meta:  # on meta there are shapes alone
            cos, sin = rope_table(cfg.context_len, cfg.n_embd // cfg.n_head, cfg.rope_base)
            self.cos[:] = cos
            self.sin[:] = sin
        outputs = []  # the layers whose result is added to the residual stream
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=cfg.embed_std)
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=cfg.init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, Attention):
                outputs.append(module.proj)
            if isinstance(module, MLP):
                outputs.append(module.down)
        # 2 n_layer outputs add up in the residual stream: their sum starts with the size of one.
        std = cfg.init_std / math.sqrt(2 * (cfg.base_depth or cfg.n_layer))
        for layer in outputs:
            nn.init.normal_(layer.weight, std=std)

    def forward(self, ids: Tensor) -> Tensor:
        return self.unembed(self.stream(ids))  # (B, T, V)

    def before_logits(self, ids: Tensor) -> tuple[Tensor, Head]:
        return self.norm(self.stream(ids)), self.last_product()

    def stream(self, ids: Tensor) -> Tensor:
        """The residual stream (B, T, C) after the last block."""
        T = ids.shape[1]
        if self.context_len < T:
            raise ValueError(
                f"{T} tokens are above the model's context_len={self.context_len}: "
                f"give fewer, or train with model.context_len={T}"
            )
        x, rope = self.embed(ids, torch.arange(T, device=ids.device))
        for block in self.blocks:
            x = block(x, rope, None)  # (B, T, C)
        return x

    def embed(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Rope | None]:
        """The residual stream (B, T, C) at its start, and for RoPE the angles of the positions.

        `positions` is (T,) or (B, T).
        """
        cfg = self.cfg
        x = self.wte(ids)  # (B, T, C)
        if cfg.positions == "learned":
            x = x + self.wpe(positions)
        if cfg.embed_norm:
            x = F.rms_norm(x, (cfg.n_embd,), eps=cfg.norm_eps)
        x = self.dropout(x)
        if cfg.positions == "learned":
            return x, None
        cos = self.cos[positions].float()  # (T, 1, D/2), or with a B
        sin = self.sin[positions].float()
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            return x, torch.complex(cos, sin)  # one pass over memory instead of six
        return x, (cos, sin)

    def unembed(self, x: Tensor) -> Tensor:
        """Logits (..., V), float32, that the head reads from the residual stream (..., C).

        It may be the stream after any layer: the lens asks for each.
        """
        return self.last_product().logits(self.norm(x)).float()

    def last_product(self) -> Head:
        weight = self.wte.weight if self.head is None else self.head.weight
        return Head(weight, softcap=self.cfg.softcap)

    def start(self, batch_size: int) -> KVCache:
        cfg = self.cfg
        n_kv_head = cfg.n_kv_head or cfg.n_head
        head_dim = cfg.n_embd // cfg.n_head
        like = self.wte.weight
        return KVCache(batch_size, cfg.n_layer, n_kv_head, self.context_len, head_dim, like)

    @torch.no_grad()
    def step(self, ids: Tensor, state: KVCache, lengths: list[int] | None = None) -> Tensor:
        B, T = ids.shape
        positions = state.open(T)  # (T,), or (B, T) where rows differ
        # Two faster ways for one token each; the road itself begins at embed. A subclass may
        # compute something else, so it takes that road.
        if T == 1 and lengths is None and type(self) is Transformer:
            if state.compiled:
                state.close(None)
                places = positions.flatten().expand(B).clone()  # (B,)
                return Slots.compiled_step()(self, ids, places, state.kv)
            if decode.serves(self):
                if state.decoder is None:
                    state.decoder = decode.Decoder(self, B)
                return state.decoder(ids[:, 0], positions, state)
        x, rope = self.embed(ids, positions)  # (B, T, C)
        for block in self.blocks:
            x = block(x, rope, state)
        state.close(lengths)
        if lengths is None:
            return self.unembed(x[:, -1])  # (B, V)
        last = [n - 1 for n in lengths]
        return self.unembed(x[torch.arange(B), last])

    def stacked_rows(self) -> dict[str, tuple[int, ...]]:
        rows = {}
        for name, module in self.named_modules():
            if isinstance(module, Attention):
                rows[f"{name}.qkv"] = module.qkv_rows
            if isinstance(module, MLP) and module.gated:
                rows[f"{name}.up"] = module.up_rows
        return rows

    def flops_per_token(self) -> int:
        """6 (matrix weights) + 12 n_layer C context_len: forward and backward (PaLM, appendix B).

        The second term are the two products of attention over the whole context; the causal half
        of it that need not be computed is counted, as everybody does.
        """
        flops = super().flops_per_token()
        if self.head is None:  # the embedding's matrix is multiplied as well
            flops += 6 * self.wte.weight.numel()
        return flops + 12 * self.cfg.n_layer * self.cfg.n_embd * self.context_len


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): each part adds to the stream and reads it."""

    def __init__(self, cfg: TransformerConfig, layer: int):
        super().__init__()
        self.norm_attn = make_norm(cfg)
        self.attn = Attention(cfg, layer)
        self.norm_mlp = make_norm(cfg)
        self.mlp = MLP(cfg)
        self.dropout = Dropout(cfg.dropout)

    def forward(self, x: Tensor, rope: Rope | None, cache: Cache | None) -> Tensor:
        x = x + self.dropout(self.attn(self.norm_attn(x), rope, cache))  # (B, T, C)
        return x + self.dropout(self.mlp(self.norm_mlp(x)))  # (B, T, C)


class MLP(nn.Module):
    """Two layers on each position alone, with the activation between them that cfg names."""

    def __init__(self, cfg: TransformerConfig):
        super().__init__()
        self.activation = cfg.activation
        self.gated = cfg.activation == "swiglu"
        n_mlp = cfg.n_mlp
        if n_mlp == 0 and self.gated:
            # Two thirds of 4 n_embd, up to a multiple of 8: the gate then costs no extra weights.
            n_mlp = 8 * math.ceil(cfg.n_embd / 3)
        elif n_mlp == 0:
            n_mlp = 4 * cfg.n_embd
        self.up_rows = (n_mlp, n_mlp) if self.gated else (n_mlp,)  # gate and up, in this order
        self.up = nn.Linear(cfg.n_embd, sum(self.up_rows), bias=cfg.bias)
        self.down = nn.Linear(n_mlp, cfg.n_embd, bias=cfg.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.between(self.up(x)))  # (B, T, C)

    def between(self, x: Tensor) -> Tensor:
        """The activation: (..., n_mlp) of what `up` gives, which for swiglu is twice as wide."""
        if self.activation == "gelu":
            return gelu(x)
        if self.activation == "relu2":
            return F.relu(x).square()  # So et al. 2021, https://arxiv.org/abs/2109.08668
        if self.activation == "swiglu":
            gate, x = x.chunk(2, dim=-1)
            return F.silu(gate) * x
        raise no_code_for("model.activation", self.activation)


def gelu(x: Tensor) -> Tensor:
    """GPT-2's GELU. A compiler gets 1 + tanh(u) as 2 sigmoid(2u), twice as fast in its kernels."""
    if torch.compiler.is_compiling():
        return x * torch.sigmoid(1.5957691216 * (x + 0.044715 * x * x * x))
    return F.gelu(x, approximate="tanh")


def make_norm(cfg: TransformerConfig) -> nn.LayerNorm | nn.RMSNorm:
    if cfg.norm == "layernorm":
        return nn.LayerNorm(cfg.n_embd, eps=cfg.norm_eps, bias=cfg.bias)
    if cfg.norm == "rmsnorm":
        return nn.RMSNorm(cfg.n_embd, eps=cfg.norm_eps)
    raise no_code_for("model.norm", cfg.norm)
