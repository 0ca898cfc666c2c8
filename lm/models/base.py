"""What every language model is: token ids (B, T) in, logits (B, T, V) out.

    model = cfg.model.build(vocab_size)
    logits = model(ids)                       # (B, T, V), float32

A new model is a subclass with a `forward`; the rest of this file then works for it.
"""

import itertools
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm.models.kv_cache import State


class LanguageModel(nn.Module):
    """Logits of the next token at every position; position t sees the tokens up to t alone."""

    trainable = True  # by gradients; False: `fit` counts once
    limited = True  # `forward` refuses more than context_len tokens
    low_precision = False  # its time goes into matrix products, so `auto` trains it in bfloat16
    hidden: tuple[str, ...] = ()  # submodules whose matrices lie between embedding and head

    def __init__(self, cfg, vocab_size: int):
        super().__init__()
        self.cfg = cfg
        self.vocab_size = vocab_size
        self.context_len = cfg.context_len
        self.memory = cfg.context_len  # earlier tokens that a prediction can depend on

    def forward(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, V)
        raise NotImplementedError

    def fit(self, ids: np.ndarray) -> None:
        """Learn from all training tokens (N,) at once: what models that only count do."""

    @property
    def device(self) -> torch.device:
        first = next(itertools.chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    def start(self, batch_size: int) -> State:
        """The state of having read nothing, for `step`."""
        shape = (batch_size, self.memory)
        return State(batch_size, [torch.zeros(shape, dtype=torch.long, device=self.device)])

    def step(self, ids: Tensor, state: State, lengths: list[int] | None = None) -> Tensor:
        """Read ids (B, T) after all that `state` has read; logits (B, V) of what comes next.

        `lengths` says how many tokens of each row are real, at least one; the rest is padding on
        the right and is not read. Equal to `forward` on the whole texts, at their last tokens.
        This version remembers `memory` tokens and runs `forward` on them: right for any model.
        """
        B, T = ids.shape
        old = torch.tensor(state.lengths, device=ids.device)  # (B,)
        ends = old + torch.tensor(lengths or [T] * B, device=ids.device)
        seen = F.pad(state.tensors[0], (0, T))  # (B, memory + T), each row filled from 0
        seen.scatter_(1, old[:, None] + torch.arange(T, device=ids.device), ids)
        rows = torch.arange(B, device=ids.device)
        logits = self(seen[:, : int(ends.max())])[rows, ends - 1]  # (B, V)
        starts = (ends - self.memory).clamp(min=0)
        kept = starts[:, None] + torch.arange(self.memory, device=ids.device)
        state.tensors = [seen.gather(1, kept)]
        state.lengths = (ends - starts).tolist()
        return logits

    def stacked_rows(self) -> dict[str, tuple[int, ...]]:
        """Row counts of the independent matrices in each submodule's weights, by its name.

        For layers that compute several products in one, such as queries, keys and values. An
        optimizer that looks at whole matrices then sees them one by one.
        """
        return {}

    def n_params(self) -> int:
        """Numbers that were learned; for counts, the numbers stored."""
        learned = self.parameters() if self.trainable else self.buffers()
        return sum(tensor.numel() for tensor in learned)

    def flops_per_token(self) -> int:
        """Operations of forward and backward for one training token, matrix products alone.

        Two (a product and a sum) for each weight of a matrix in the forward pass and twice that
        in the backward pass: 6 n. Looking up an embedding costs none. 0 for models that count.
        """
        linear = [m for m in self.modules() if isinstance(m, nn.Linear)]
        return 6 * sum(m.weight.numel() for m in linear)


class CountModel(LanguageModel):
    """A model of counted tables: buffers whose length depends on the text.

    A subclass lists them in `tables` as {name: dtype}, checks them in `check` and computes what
    follows from them in `prepare`.
    """

    trainable = False
    limited = False
    tables: Mapping[str, torch.dtype]

    def set_tables(self, tables: Mapping[str, np.ndarray | Tensor]) -> None:
        """Take over counted tables, on the device where the model is."""
        there = next(self.buffers(), None)  # none yet as the model is made
        for name, dtype in self.tables.items():
            table = torch.as_tensor(tables[name]).to(dtype)
            self.register_buffer(name, table if there is None else table.to(there.device))
        self.prepare()

    def check(self) -> None:
        """Raise ValueError unless `fit` could have made the tables: they may be a stranger's."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Compute from the tables what `forward` needs."""

    def refuse(self, what: str) -> ValueError:
        return ValueError(
            f"the saved tables of model {self.cfg.name} are damaged: {what}; train the model again"
        )

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Make room for tables of the saved length, load them, check them (PyTorch calls this)."""
        for name, dtype in self.tables.items():
            saved, mine = state_dict.get(prefix + name), getattr(self, name)
            if saved is not None and saved.ndim == 1 and saved.dtype == dtype:
                setattr(self, name, mine.new_empty(saved.shape))
            elif saved is not None:
                raise self.refuse(f"{name} is {tuple(saved.shape)} {saved.dtype}, not (n,) {dtype}")
        super()._load_from_state_dict(state_dict, prefix, *args)
        if all(prefix + name in state_dict for name in self.tables):
            self.check()
            self.prepare()
