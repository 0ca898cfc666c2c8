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

import numpy as np
import torch
from torch import Tensor

from lm import metrics
from lm.models.base import CountModel


class Ngram(CountModel):
    """Log-probabilities (B, T, V) out of one sorted table per order.

    A sequence of n tokens has the key (row of its first n - 1 tokens in the table of n - 1) V +
    its last token. Keys of any order so fit 64 bits, and what can follow a context is one slice.
    """

    def __init__(self, cfg, vocab_size: int):
        super().__init__(cfg, vocab_size)
        self.memory = cfg.order - 1
        self.orders = range(1, cfg.order + 1)
        self.tables = {
            f"{what}_{n}": torch.int64 for n in self.orders for what in ("keys", "counts")
        }
        self.set_tables({name: torch.zeros(0) for name in self.tables})

    def fit(self, ids: np.ndarray) -> None:
        """Count every sequence of up to `order` tokens, with one sort per order."""
        ids = np.asarray(ids).astype(np.int64)
        tables: dict[str, np.ndarray] = {}
        row = np.zeros(
            len(ids) + 1, np.int64
        )  # table row of the sequence that starts at each place
        for n in self.orders:
            n_places = max(len(ids) - n + 1, 0)
            keys = row[:n_places] * self.vocab_size + ids[n - 1 :]
            # PyTorch's is a radix sort: half the time of numpy's.
            keys, order = (t.numpy() for t in torch.from_numpy(keys).sort(stable=True))
            new = np.concatenate((np.ones(min(n_places, 1), bool), keys[1:] != keys[:-1]))
            tables[f"keys_{n}"] = keys[new]
            tables[f"counts_{n}"] = np.diff(np.flatnonzero(new), append=n_places)
            if n > 1 and len(row):
                # Each distinct sequence is one token seen before its last n - 1, which start one
                # place later. The start of the text is one more, so that no count is 0.
                suffixes = row[order[new] + 1]
                counts = np.bincount(suffixes, minlength=len(tables[f"keys_{n - 1}"]))
                counts[row[0]] += 1
                tables[f"counts_{n - 1}"] = counts
            row = np.empty(n_places, np.int64)
            row[order] = np.cumsum(new) - 1
        self.set_tables(tables)

    def prepare(self) -> None:
        """Probabilities less discount, and what each context leaves to the shorter one. Computed
        on the CPU: of the others one, MPS, knows no float64."""
        V, n_contexts, where = self.vocab_size, 1, self.device  # one: the empty context
        for n in self.orders:
            keys = self.get_buffer(f"keys_{n}").cpu()
            counts = self.get_buffer(f"counts_{n}").cpu().double()
            contexts = keys // V
            discounts = self.discounts(n)[counts.clamp(max=3).long() - 1]
            totals = counts.new_zeros(n_contexts).index_add_(0, contexts, counts)
            left = counts.new_zeros(n_contexts).index_add_(0, contexts, discounts)
            probs = (counts - discounts) / totals[contexts]
            backoff = torch.where(totals > 0, left / totals, 1.0)
            firsts = torch.arange(n_contexts + 1) * V
            made = {"starts": torch.searchsorted(keys, firsts), "tokens": keys % V}
            made |= {"probs": probs.float(), "backoff": backoff.float()}
            for name, table in made.items():
                self.register_buffer(f"{name}_{n}", table.to(where), persistent=False)
            n_contexts = len(keys)
        unigram = (self.backoff_1 / V).repeat(V)
        unigram[self.tokens_1] += self.probs_1
        self.register_buffer("unigram", unigram, persistent=False)  # (V,)

    def discounts(self, n: int) -> Tensor:
        """What is taken from counts of 1, 2, and 3 or more at order n (the paper's eq. 26)."""
        counts = self.get_buffer(f"counts_{n}")
        n1, n2, n3, n4 = (int((counts == c).sum()) for c in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2) if n1 else 0.0
        found = []
        for c, here, above in ((1, n1, n2), (2, n2, n3), (3, n3, n4)):
            d = c - (c + 1) * y * above / here if here else 0.0
            # Half, where such small counts are too rare to tell: characters occur by thousands.
            found.append(d if 0 < d < c else c / 2)
        return torch.tensor(found, dtype=torch.float64)

    def check(self) -> None:
        n_contexts = 1
        for n in self.orders:
            keys, counts = self.get_buffer(f"keys_{n}"), self.get_buffer(f"counts_{n}")
            if keys.shape != counts.shape:
                raise self.refuse(f"order {n} has {len(keys)} keys and {len(counts)} counts")
            if len(keys):
                if (
                    (keys.diff() <= 0).any()
                    or keys[0] < 0
                    or keys[-1] >= n_contexts * self.vocab_size
                ):
                    raise self.refuse(f"the keys of order {n} are not in order or have no context")
                if (counts < 1).any() or (counts > 2**40).any():
                    raise self.refuse(f"a count of order {n} is below 1 or above 2**40")
            n_contexts = len(keys)

    def forward(self, ids: Tensor) -> Tensor:
        V, n_places = self.vocab_size, ids.numel()
        scale = self.unigram.new_ones(n_places)  # (N,), N = B T: what longer contexts left over
        places, values = [], []  # in the flat (N V,) result
        for n, context in reversed(list(zip(self.orders, self.contexts(ids), strict=True))[1:]):
            seen, context = context >= 0, context.clamp(min=0)  # (N,)
            if len(self.get_buffer(f"keys_{n}")) == 0:
                continue
            starts, backoff = self.get_buffer(f"starts_{n}"), self.get_buffer(f"backoff_{n}")
            first = starts[context]
            length = torch.where(seen, starts[context + 1] - first, 0)
            place = torch.repeat_interleave(torch.arange(n_places, device=ids.device), length)
            entry = (
                torch.arange(len(place), device=ids.device)
                + (first + length - length.cumsum(0))[place]
            )
            places.append(place * V + self.get_buffer(f"tokens_{n}")[entry])
            values.append(self.get_buffer(f"probs_{n}")[entry] * scale[place])
            scale = scale * torch.where(seen, backoff[context], 1.0)
        probs = scale[:, None] * self.unigram  # (N, V)
        if places:
            probs.view(-1).index_add_(0, torch.cat(places), torch.cat(values))
        return probs.log().view(*ids.shape, V)  # (B, T, V)

    def nats(self, ids: Tensor, targets: Tensor) -> Tensor:
        """-ln p(target) as (B, T), without the other V - 1 probabilities that forward computes;
        0 where the target is metrics.IGNORE."""
        last = targets.clamp(min=0).flatten()  # (N,), N = B T
        probs = self.unigram[last]
        for n, context in list(zip(self.orders, self.contexts(ids), strict=True))[1:]:
            keys = self.get_buffer(f"keys_{n}")
            if len(keys) == 0:
                continue
            seen, context = context >= 0, context.clamp(min=0)
            wanted = context * self.vocab_size + last
            row = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            own = torch.where(keys[row] == wanted, self.get_buffer(f"probs_{n}")[row], 0.0)
            longer = own + self.get_buffer(f"backoff_{n}")[context] * probs
            probs = torch.where(seen, longer, probs)
        nats = -probs.log().view(targets.shape)
        return torch.where(targets == metrics.IGNORE, 0.0, nats)

    def contexts(self, ids: Tensor) -> list[Tensor]:
        """For each order n the row (B T,) of the n - 1 tokens up to a position, -1 if unknown."""
        row = torch.zeros_like(ids)  # (B, T): the empty context
        rows = [row.flatten()]
        for n in self.orders[:-1]:
            if n > 1:  # the tokens before: none stand before the window
                row = torch.cat((row.new_full((len(row), 1), -1), row[:, :-1]), dim=1)
            keys, wanted = self.get_buffer(f"keys_{n}"), row * self.vocab_size + ids
            if len(keys) == 0:
                row = torch.full_like(ids, -1)
            else:
                found = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
                row = torch.where((keys[found] == wanted) & (row >= 0), found, -1)
            rows.append(row.flatten())
        return rows

    def n_params(self) -> int:
        return sum(len(self.get_buffer(f"counts_{n}")) for n in self.orders)
