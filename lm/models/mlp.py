"""A fixed-window network: the embeddings of the last few tokens, through one hidden layer.

    python -m lm.train model=mlp model.window=16

Bengio et al. 2003, A Neural Probabilistic Language Model, without the direct connections.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lm.config import MLPConfig
from lm.models.base import LanguageModel
from lm.models.head_loss import Head


class MLP(LanguageModel):
    """tanh layer over the last `window` tokens; before the text stands a token of its own."""

    cfg: MLPConfig
    limited = False
    hidden = ("layer",)
    readout = "head"

    def __init__(self, cfg: MLPConfig, vocab_size: int):
        super().__init__(cfg, vocab_size)
        self.memory = cfg.window - 1
        self.wte = nn.Embedding(vocab_size + 1, cfg.n_embd)  # the last row: no token here
        self.layer = nn.Linear(cfg.window * cfg.n_embd, cfg.n_hidden)
        self.dropout = nn.Dropout(cfg.dropout)
        self.head = nn.Linear(cfg.n_hidden, vocab_size)
        nn.init.normal_(self.head.weight, std=0.02)  # small: the first loss is near ln V
        nn.init.zeros_(self.head.bias)
        self.scale_init()

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.before_head(ids)).float()  # (B, T, V)

    def before_logits(self, ids: Tensor) -> tuple[Tensor, Head]:
        return self.before_head(ids), Head(self.head.weight, self.head.bias)

    def before_head(self, ids: Tensor) -> Tensor:
        ids = F.pad(ids, (self.memory, 0), value=self.vocab_size)  # (B, W-1+T)
        x = self.wte(ids).unfold(1, self.cfg.window, 1)  # (B, T, C, W)
        h = self.layer(x.mT.flatten(2)).tanh()  # (B, T, n_hidden)
        return self.dropout(h)
