"""What every language model is: token ids (B, T) in, logits (B, T, V) out.

    model = cfg.model.build(vocab_size)
    logits = model(ids)                       # (B, T, V), float32

A new model is a subclass with a `forward`; the rest of this file then works for it.
"""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm import metrics
from lm.config import ModelConfig
from lm.models import head_loss, parametrization
from lm.models.kv_cache import State


class LanguageModel(nn.Module):
    """Logits of the next token at every position; position t sees the tokens up to t alone."""

    trainable = True  # by gradients; False: `fit` counts once
    limited = True  # `forward` refuses more than context_len tokens
    low_precision = False  # its time goes into matrix products, so `auto` trains it in bfloat16
    scores_alone = False  # `nats` does without the logits of all tokens: no V in its time
    hidden: tuple[str, ...] = ()  # submodules whose matrices lie between embedding and head
    # For model.base_width and model.base_depth, see parametrization.py:
    branches: tuple[str, ...] = ()  # how the names of those in it end whose result is added to x
    readout: str = ""  # the submodule whose weights set the size of the logits
    starts_by_fan_in = True  # as PyTorch's layers: hidden matrices are smaller in a wider model

    def __init__(self, cfg: ModelConfig, vocab_size: int):
        super().__init__()
        self.cfg = cfg
        self.vocab_size = vocab_size
        self.context_len = cfg.context_len
        self.memory = cfg.context_len  # earlier tokens that a prediction can depend on
        self.has_scaled_init = False
        # Only the class that defines before_logits itself: a subclass of it may compute otherwise.
        self.head_is_apart = "before_logits" in vars(type(self))

    def forward(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, V)
        raise NotImplementedError

    def nats(self, ids: Tensor, targets: Tensor) -> Tensor:
        """-ln p(target) after ids, all (B, T); 0 where the target is metrics.IGNORE."""
        if self.goes_in_pieces(ids):
            return head_loss.nats(*self.before_logits(ids), targets)
        return metrics.nats(self(ids), targets)

    def next_token_loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The mean of `nats` over the targets that count, (): what training minimises."""
        if self.goes_in_pieces(ids):
            return head_loss.loss(*self.before_logits(ids), targets)
        return metrics.next_token_loss(self(ids), targets)

    def before_logits(self, ids: Tensor) -> tuple[Tensor, head_loss.Head]:
        """For a large vocabulary: what the last product reads, (B, T, C), and that product.

        Of ids (B, T); `forward` is the one times the other. A model without it can do as well.
        """
        raise NotImplementedError

    def goes_in_pieces(self, ids: Tensor) -> bool:
        """Whether ids (B, T) have so many logits that losses are computed in pieces of rows.

        It depends on the shape alone: a run that is resumed computes as before.
        """
        n_logits = ids.numel() * self.vocab_size
        return self.head_is_apart and n_logits >= head_loss.sizes(ids.device).least

    def fit(self, ids: np.ndarray) -> None:
        """Learn from all training tokens (N,) at once: what models that only count do."""

    @property
    def device(self) -> torch.device:
        first = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    def start(self, batch_size: int) -> State:
        """The state of having read nothing, for `step`."""
        tokens = torch.zeros(batch_size, self.memory, dtype=torch.long, device=self.device)
        return State(batch_size, [tokens])

    def step(self, ids: Tensor, state: State, lengths: list[int] | None = None) -> Tensor:
        """Read ids (B, T) after all that `state` has read; logits (B, V) of what comes next.

        `lengths` says how many tokens of each row are real, at least one; the rest is padding on
        the right and is not read. Equal to `forward` on the whole texts, at their last tokens.
        This version remembers `memory` tokens and runs `forward` on them: right for any model.
        """
        B, T = ids.shape
        device = ids.device
        n_old = torch.tensor(state.lengths, device=device)  # (B,)
        n_all = n_old + torch.tensor(lengths or [T] * B, device=device)
        text = F.pad(state.tensors[0], (0, T))  # (B, memory + T), each row filled from 0
        places = n_old[:, None] + torch.arange(T, device=device)  # (B, T)
        text.scatter_(1, places, ids)
        longest = int(n_all.max())
        logits = self(text[:, :longest])  # (B, longest, V)
        first = (n_all - self.memory).clamp(min=0)  # what stands before it is forgotten
        kept = first[:, None] + torch.arange(self.memory, device=device)
        state.tensors = [text.gather(1, kept)]
        state.lengths = (n_all - first).tolist()
        rows = torch.arange(B, device=device)
        return logits[rows, n_all - 1]  # (B, V)

    def stacked_rows(self) -> dict[str, tuple[int, ...]]:
        """Row counts of the independent matrices in each submodule's weights, by its name.

        For layers that compute several products in one, such as queries, keys and values. An
        optimizer that looks at whole matrices then sees them one by one.
        """
        return {}

    def scale_init(self) -> None:
        """What __init__ calls last: initial sizes as the base of model.base_width has them."""
        parametrization.scale_init(self)
        self.has_scaled_init = True

    def n_params(self) -> int:
        """Numbers that were learned; for counts, the numbers stored."""
        learned = self.parameters() if self.trainable else self.buffers()
        return sum(tensor.numel() for tensor in learned)

    def flops_per_token(self) -> int:
        """Operations of forward and backward for one training token, matrix products alone.

        Two (a product and a sum) for each weight of a matrix in the forward pass and twice that
        in the backward pass: 6 n. Looking up an embedding costs none. 0 for models that count.
        """
        layers = [m for m in self.modules() if isinstance(m, nn.Linear)]
        return 6 * sum(layer.weight.numel() for layer in layers)
