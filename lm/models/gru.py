"""A recurrent network with gates: what it has read is one vector per layer, of fixed size.

    python -m lm.train model=gru model.n_hidden=512

Cho et al. 2014, https://arxiv.org/abs/1406.1078.
"""

import torch
from torch import Tensor, nn

from lm.config import GRUConfig
from lm.models.base import LanguageModel
from lm.models.head_loss import Head
from lm.models.kv_cache import State


class GRU(LanguageModel):
    """Embedding, GRU layers, head. Reads texts of any length; each window starts from zeros."""

    cfg: GRUConfig
    limited = False
    hidden = ("layers",)
    readout = "head"

    def __init__(self, cfg: GRUConfig, vocab_size: int):
        super().__init__(cfg, vocab_size)
        self.wte = nn.Embedding(vocab_size, cfg.n_embd)
        self.dropout = nn.Dropout(cfg.dropout)
        # One module a layer: nn.GRU shows the states at all positions of its last layer alone.
        self.layers = nn.ModuleList()
        for i in range(cfg.n_layer):
            n_in = cfg.n_embd if i == 0 else cfg.n_hidden
            self.layers.append(nn.GRU(n_in, cfg.n_hidden, batch_first=True))
        self.head = nn.Linear(cfg.n_hidden, vocab_size)
        nn.init.normal_(self.head.weight, std=0.02)  # small: the first loss is near ln V
        nn.init.zeros_(self.head.bias)
        self.scale_init()

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.before_head(ids)).float()  # (B, T, V)

    def before_logits(self, ids: Tensor) -> tuple[Tensor, Head]:
        return self.before_head(ids), Head(self.head.weight, self.head.bias)

    def before_head(self, ids: Tensor) -> Tensor:
        x = self.dropout(self.wte(ids))  # (B, T, C)
        for layer in self.layers:
            x = self.dropout(layer(x)[0])  # (B, T, n_hidden)
        return x

    def start(self, batch_size: int) -> State:
        zeros = self.head.weight.new_zeros(batch_size, self.cfg.n_hidden)
        return State(batch_size, [zeros.clone() for _ in self.layers])

    def step(self, ids: Tensor, state: State, lengths: list[int] | None = None) -> Tensor:
        B, T = ids.shape
        lengths = lengths or [T] * B
        rows = torch.arange(B, device=ids.device)
        last = torch.tensor(lengths, device=ids.device) - 1
        x = self.dropout(self.wte(ids))
        for i, layer in enumerate(self.layers):
            hidden = state.tensors[i][None].contiguous()  # (1, B, n_hidden)
            x = layer(x, hidden)[0]  # (B, T, n_hidden)
            state.tensors[i] = x[rows, last]  # padding comes later, so it has changed nothing here
            x = self.dropout(x)
        state.count(lengths)
        return self.head(x[rows, last]).float()  # (B, V)

    def stacked_rows(self) -> dict[str, tuple[int, ...]]:
        gates = (self.cfg.n_hidden,) * 3
        return {f"layers.{i}": gates for i in range(len(self.layers))}

    def flops_per_token(self) -> int:
        """6 operations for each weight of the gates and the head; see LanguageModel."""
        gates = sum(p.numel() for p in self.layers.parameters() if p.ndim == 2)
        return 6 * (gates + self.head.weight.numel())
