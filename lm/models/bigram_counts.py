"""The bigram model as counts: how often each token followed each other one, plus a constant.

    python -m lm.train model=bigram_counts model.add_k=0.1      # no gradient steps: it counts once

P(b | a) = (count(a b) + k) / (count(a .) + k V). Only the pairs that occur are stored.
"""

import numpy as np
import torch
from torch import Tensor

from lm.models.base import CountModel

CHUNK = 1 << 24  # tokens counted at a time: what is held besides the pairs themselves


class BigramCounts(CountModel):
    """Log-probabilities by add-k smoothing, from a sparse table of pairs."""

    tables = {"pairs": torch.int64, "counts": torch.int64}  # pair a b is the number a V + b, sorted

    def __init__(self, cfg, vocab_size: int):
        super().__init__(cfg, vocab_size)
        self.memory = 0
        self.set_tables({"pairs": torch.zeros(0), "counts": torch.zeros(0)})

    def fit(self, ids: np.ndarray) -> None:
        V = self.vocab_size
        pairs, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for start in range(0, len(ids) - 1, CHUNK):
            chunk = np.asarray(ids[start : start + CHUNK + 1], np.int64)
            new, n = unique_counts(chunk[:-1] * V + chunk[1:], V * V)
            if start:  # merge with what the chunks before it had
                both = np.concatenate((pairs, new))
                order = np.argsort(both, kind="stable")
                new, first = np.unique(both[order], return_index=True)
                n = np.add.reduceat(np.concatenate((counts, n))[order], first)
            pairs, counts = new, n
        self.set_tables({"pairs": pairs, "counts": counts})

    def prepare(self) -> None:
        V, device = self.vocab_size, self.pairs.device
        firsts = torch.arange(V + 1, device=device) * V
        self.register_buffer("starts", torch.searchsorted(self.pairs, firsts), persistent=False)
        sums = torch.cat((self.counts.new_zeros(1), self.counts.cumsum(0)))
        self.register_buffer("totals", sums[self.starts].diff(), persistent=False)  # (V,)

    def check(self) -> None:
        if self.pairs.shape != self.counts.shape:
            raise self.refuse(f"{len(self.pairs)} pairs and {len(self.counts)} counts")
        if len(self.pairs) == 0:
            return
        if (
            self.pairs[0] < 0
            or self.pairs[-1] >= self.vocab_size**2
            or (self.pairs.diff() <= 0).any()
        ):
            raise self.refuse("the pairs are not in order or hold unknown tokens")
        if (self.counts < 1).any() or (self.counts > 2**40).any():
            raise self.refuse("a count is below 1 or above 2**40")

    def forward(self, ids: Tensor) -> Tensor:
        V, k = self.vocab_size, self.cfg.add_k
        flat = ids.reshape(-1)  # (N,), N = B T
        scale = -torch.log(self.totals[flat] + k * V)  # (N,)
        logits = (scale + np.log(k))[:, None].repeat(1, V)  # of a pair that never occurred
        start, n = self.starts[flat], self.starts[flat + 1] - self.starts[flat]
        row = torch.repeat_interleave(
            torch.arange(len(flat), device=ids.device), n
        )  # (pairs of all rows,)
        entry = torch.arange(len(row), device=ids.device) + (start - n.cumsum(0) + n)[row]
        logits[row, self.pairs[entry] % V] = torch.log(self.counts[entry] + k) + scale[row]
        return logits.view(*ids.shape, V).float()  # (B, T, V)

    def n_params(self) -> int:
        return len(self.counts)


def unique_counts(keys: np.ndarray, n_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys (int64, below n_keys) in order and how often each occurs."""
    if n_keys <= 2 * len(keys):  # a table of all keys is no larger than the text
        counts = np.bincount(keys)
        found = np.flatnonzero(counts)
        return found, counts[found]
    keys = torch.from_numpy(keys).sort().values.numpy()  # a radix sort: half of numpy's time
    first = np.flatnonzero(np.concatenate((np.ones(1, bool), keys[1:] != keys[:-1])))
    return keys[first], np.diff(first, append=len(keys))
