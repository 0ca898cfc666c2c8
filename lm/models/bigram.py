"""The bigram model as a neural network: one learned row of logits for each previous token.

python -m lm.train model=bigram tokenizer=char      # ends near the loss of model=bigram_counts
"""

from torch import Tensor, nn

from lm.config import BigramConfig
from lm.models.base import LanguageModel
from lm.models.head_loss import Head


class Bigram(LanguageModel):
    """Logits = a row of a (V, V) table, looked up by the last token and learned by gradient."""

    limited = False

    def __init__(self, cfg: BigramConfig, vocab_size: int):
        super().__init__(cfg, vocab_size)
        self.memory = 0
        self.table = nn.Embedding(vocab_size, vocab_size)
        nn.init.zeros_(self.table.weight)  # all tokens equally likely: the first loss is ln V

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids).float()  # (B, T, V)

    def before_logits(self, ids: Tensor) -> tuple[Tensor, Head]:
        return ids, Head(self.table.weight)
