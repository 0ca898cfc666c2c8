"""Counts of sequences up to `order` tokens, smoothed: interpolated modified Kneser-Ney.

    python -m lm.train model=ngram model.order=4 tokenizer=char      # counts once, in seconds

Chen and Goodman 1999, An Empirical Study of Smoothing Techniques. With c the counts of order n
and h the n - 1 tokens before w:

    P_n(w | h) = max(c(h w) - D, 0) / c(h .)  +  backoff(h) P_{n-1}(w | h without its first token)

The discount D depends on c(h w) being 1, 2 or more; what it takes away is backoff(h). The longest
order counts occurrences, shorter ones the different tokens seen before the sequence (the start of
the text is one such token). Below single tokens stands the uniform 1/V. A context never seen
leaves all to the next shorter one. A position sees its own window alone: near the window's
start the contexts are short.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lm import metrics
from lm.config import NgramConfig
from lm.models.counts import MAX_COUNT, CountModel, find, is_first, slices, sort


class Table(NamedTuple):
    """The sequences of one order, as rows sorted by their keys, and their contexts."""

    keys: Tensor  # (rows,)
    probs: Tensor  # (rows,) less the discount
    backoff: Tensor  # (contexts,) what is left to the shorter one


class Ngram(CountModel):
    """Log-probabilities (B, T, V) out of one sorted table per order.

    A sequence of n tokens has the key (row of its first n - 1 tokens in the table of n - 1) V +
    its last token. Keys of any order so fit 64 bits, and what can follow a context is one slice.

    The buffers keys_n and counts_n of each order n are saved; `prepare` computes the others.
    """

    cfg: NgramConfig
    unigram: Tensor  # (V,) smoothed probabilities of single tokens

    def __init__(self, cfg: NgramConfig, vocab_size: int):
        super().__init__(cfg, vocab_size)
        self.memory = cfg.order - 1
        self.orders = range(1, cfg.order + 1)
        self.tables = {}
        for n in self.orders:
            self.tables[f"keys_{n}"] = torch.int64
            self.tables[f"counts_{n}"] = torch.int64
        self.set_tables({name: torch.zeros(0) for name in self.tables})

    def fit(self, ids: np.ndarray) -> None:
        """Count every sequence of up to `order` tokens."""
        self.set_tables(self.count(ids))

    def count(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """The tables of the ids (n,), with one sort per order."""
        ids = np.asarray(ids).astype(np.int64)
        tables: dict[str, np.ndarray] = {}
        # The table row of the sequence that starts at each place; at first all are empty.
        row = np.zeros_like(ids)
        for n in self.orders:
            n_places = max(len(ids) - n + 1, 0)
            keys, places = sort(row[:n_places] * self.vocab_size + ids[n - 1 :])
            new = is_first(keys)
            tables[f"keys_{n}"] = keys[new]
            tables[f"counts_{n}"] = np.diff(np.flatnonzero(new), append=n_places)
            if n > 1 and len(row):
                # Each distinct sequence is one token seen before its last n - 1, which start one
                # place later. The start of the text is one more, so that no count is 0.
                suffixes = row[places[new] + 1]
                n_before = np.bincount(suffixes, minlength=len(tables[f"keys_{n - 1}"]))
                n_before[row[0]] += 1
                tables[f"counts_{n - 1}"] = n_before
            row = np.empty(n_places, np.int64)
            row[places] = np.cumsum(new)
            row -= 1
        return tables

    def prepare(self) -> None:
        """Compute the tables that `forward` reads, on the CPU: MPS knows no float64."""
        V = self.vocab_size
        device = self.device
        n_contexts = 1  # the empty one
        for n in self.orders:
            keys = self.get_buffer(f"keys_{n}").cpu()
            counts = self.get_buffer(f"counts_{n}").cpu()
            contexts = keys // V
            discounts = self.discounts(n)[counts.clamp(max=3).sub_(1)]
            counts = counts.double()
            totals = counts.new_zeros(n_contexts).index_add_(0, contexts, counts)
            taken = counts.new_zeros(n_contexts).index_add_(0, contexts, discounts)
            # In place: of a long text each of these tables takes hundreds of megabytes.
            probs = counts.sub_(discounts).div_(totals[contexts])
            backoff = torch.where(totals > 0, taken.div_(totals), 1.0)
            for name, table in {"probs": probs, "backoff": backoff}.items():
                self.register_buffer(f"{name}_{n}", table.float().to(device), persistent=False)
            n_contexts = len(keys)
        unigram = (self.get_buffer("backoff_1") / V).repeat(V)
        unigram[self.get_buffer("keys_1")] += self.get_buffer("probs_1")  # with no context before
        self.register_buffer("unigram", unigram, persistent=False)

    def discounts(self, order: int) -> Tensor:
        """What is taken from counts of 1, 2, and 3 or more at this order: (3,), by eq. 26."""
        counts = self.get_buffer(f"counts_{order}")
        n = [int((counts == c).sum()) for c in range(5)]  # sequences that occur c times
        y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.0
        discounts = []
        for c in (1, 2, 3):
            discount = 0.0
            if n[c]:
                discount = c - (c + 1) * y * n[c + 1] / n[c]
            if not 0 < discount < c:
                discount = c / 2  # too few such counts: in texts of characters all are large
            discounts.append(discount)
        return torch.tensor(discounts, dtype=torch.float64)

    def check(self) -> None:
        n_contexts = 1
        for n in self.orders:
            keys = self.get_buffer(f"keys_{n}")
            counts = self.get_buffer(f"counts_{n}")
            if keys.shape != counts.shape:
                raise self.refuse(f"order {n} has {len(keys)} keys and {len(counts)} counts")
            if len(keys):
                known = keys[0] >= 0 and keys[-1] < n_contexts * self.vocab_size
                if not known or (keys.diff() <= 0).any():
                    raise self.refuse(f"the keys of order {n} are not in order or have no context")
                if (counts < 1).any() or (counts > MAX_COUNT).any():
                    raise self.refuse(f"a count of order {n} is below 1 or above 2**40")
            n_contexts = len(keys)

    def forward(self, ids: Tensor) -> Tensor:
        V = self.vocab_size
        contexts = self.contexts(ids)
        # What longer contexts leave of the probability to shorter ones: (N,), N = B T.
        left = self.unigram.new_ones(ids.numel())
        places = []  # in the flat (N V,) result
        values = []
        for n in reversed(self.orders[1:]):
            table = self.table(n)
            if len(table.keys) == 0:
                continue
            known = contexts[n] >= 0  # (N,)
            context = contexts[n].clamp(min=0)
            first = torch.searchsorted(table.keys, context * V)
            n_rows = torch.searchsorted(table.keys, (context + 1) * V) - first
            position, row = slices(first, torch.where(known, n_rows, 0))
            places.append(position * V + table.keys[row] % V)
            values.append(table.probs[row] * left[position])
            left = left * torch.where(known, table.backoff[context], 1.0)
        probs = left[:, None] * self.unigram  # (N, V)
        if places:
            probs.view(-1).index_add_(0, torch.cat(places), torch.cat(values))
        return probs.log().view(*ids.shape, V)  # (B, T, V)

    def nats(self, ids: Tensor, targets: Tensor) -> Tensor:
        """-ln p(target) as (B, T), without the other V - 1 probabilities that forward computes."""
        contexts = self.contexts(ids)
        last = targets.clamp(min=0).flatten()  # (N,), N = B T
        probs = self.unigram[last]
        for n in self.orders[1:]:
            table = self.table(n)
            if len(table.keys) == 0:
                continue
            context = contexts[n].clamp(min=0)
            row = find(table.keys, context * self.vocab_size + last)
            own = torch.where(row >= 0, table.probs[row], 0.0)
            longer = own + table.backoff[context] * probs
            probs = torch.where(contexts[n] >= 0, longer, probs)
        nats = -probs.log().view(targets.shape)
        return torch.where(targets == metrics.IGNORE, 0.0, nats)

    def contexts(self, ids: Tensor) -> dict[int, Tensor]:
        """For each order n above 1 the row (B T,) of the n - 1 tokens up to a position, or -1."""
        row = torch.zeros_like(ids)  # (B, T): the empty context
        rows = {}
        for n in self.orders[:-1]:
            if n > 1:  # of the tokens before, and none stand before the window
                row = F.pad(row[:, :-1], (1, 0), value=-1)
            longer = find(self.get_buffer(f"keys_{n}"), row * self.vocab_size + ids)
            row = torch.where(row >= 0, longer, -1)
            rows[n + 1] = row.flatten()
        return rows

    def table(self, n: int) -> Table:
        buffers = [self.get_buffer(f"{name}_{n}") for name in Table._fields]
        return Table(*buffers)

    def n_params(self) -> int:
        return sum(len(self.get_buffer(f"counts_{n}")) for n in self.orders)
