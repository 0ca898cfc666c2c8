"""The bigram model as counts: how often each token followed each other one, plus a constant.

    python -m lm.train model=bigram_counts model.add_k=0.1      # no gradient steps: it counts once

P(b | a) = (count(a b) + k) / (count(a .) + k V). Only the pairs that occur are stored.
"""

import numpy as np
import torch
from torch import Tensor

from lm import metrics
from lm.config import BigramCountsConfig
from lm.models.counts import MAX_COUNT, CountModel, find, is_first, slices

CHUNK = 1 << 24  # tokens counted at a time: what is in memory besides the pairs themselves


class BigramCounts(CountModel):
    """Log-probabilities by add-k smoothing, from a sparse table of pairs."""

    cfg: BigramCountsConfig
    tables = {"pairs": torch.int64, "counts": torch.int64}
    pairs: Tensor  # (n,) numbers a V + b for a followed by b, in order
    counts: Tensor  # (n,)
    starts: Tensor  # (V + 1,) where in `pairs` those of each a begin
    totals: Tensor  # (V,) how often each a was followed by something

    def __init__(self, cfg: BigramCountsConfig, vocab_size: int):
        super().__init__(cfg, vocab_size)
        self.memory = 0
        self.set_tables({"pairs": torch.zeros(0), "counts": torch.zeros(0)})

    def fit(self, ids: np.ndarray) -> None:
        V = self.vocab_size
        pairs = np.zeros(0, np.int64)
        counts = np.zeros(0, np.int64)
        for start in range(0, len(ids) - 1, CHUNK):
            chunk = np.asarray(ids[start : start + CHUNK + 1], np.int64)
            keys = chunk[:-1] * V + chunk[1:]
            more_pairs, more_counts = unique_counts(keys, V * V)
            if start == 0:
                pairs = more_pairs
                counts = more_counts
                continue
            pairs = np.concatenate((pairs, more_pairs))
            counts = np.concatenate((counts, more_counts))
            order = np.argsort(pairs, kind="stable")
            pairs, first = np.unique(pairs[order], return_index=True)
            counts = np.add.reduceat(counts[order], first)
        self.set_tables({"pairs": pairs, "counts": counts})

    def prepare(self) -> None:
        V = self.vocab_size
        firsts = torch.arange(V + 1, device=self.pairs.device) * V
        self.register_buffer("starts", torch.searchsorted(self.pairs, firsts), persistent=False)
        sums = torch.cat((self.counts.new_zeros(1), self.counts.cumsum(0)))
        self.register_buffer("totals", sums[self.starts].diff(), persistent=False)

    def check(self) -> None:
        if self.pairs.shape != self.counts.shape:
            raise self.refuse(f"{len(self.pairs)} pairs and {len(self.counts)} counts")
        if len(self.pairs) == 0:
            return
        known = self.pairs[0] >= 0 and self.pairs[-1] < self.vocab_size**2
        if not known or (self.pairs.diff() <= 0).any():
            raise self.refuse("the pairs are not in order or hold unknown tokens")
        if (self.counts < 1).any() or (self.counts > MAX_COUNT).any():
            raise self.refuse("a count is below 1 or above 2**40")

    def forward(self, ids: Tensor) -> Tensor:
        V = self.vocab_size
        k = self.cfg.add_k
        flat = ids.reshape(-1)  # (N,), N = B T
        scale = -torch.log(self.totals[flat] + k * V)  # (N,)
        logits = (scale + np.log(k))[:, None].repeat(1, V)  # of a pair that never occurred
        start = self.starts[flat]
        row, entry = slices(start, self.starts[flat + 1] - start)  # the pairs that did
        token = self.pairs[entry] % V
        logits[row, token] = torch.log(self.counts[entry] + k) + scale[row]
        return logits.view(*ids.shape, V).float()  # (B, T, V)

    def nats(self, ids: Tensor, targets: Tensor) -> Tensor:
        """-ln p(target) as (B, T), without the other V - 1 probabilities that forward computes."""
        V = self.vocab_size
        k = self.cfg.add_k
        row = find(self.pairs, ids * V + targets.clamp(min=0))
        count = torch.zeros_like(targets)
        known = row >= 0
        count[known] = self.counts[row[known]]
        nats = torch.log(self.totals[ids] + k * V) - torch.log(count + k)
        return torch.where(targets == metrics.IGNORE, 0.0, nats)

    def n_params(self) -> int:
        return len(self.counts)


def unique_counts(keys: np.ndarray, n_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys (int64, below n_keys) in order and how often each occurs."""
    if n_keys <= 2 * len(keys):  # a table of all keys is no larger than the text
        counts = np.bincount(keys)
        present = np.flatnonzero(counts)
        return present, counts[present]
    keys = torch.from_numpy(keys).sort().values.numpy()  # a radix sort: half of numpy's time
    first = np.flatnonzero(is_first(keys))
    return keys[first], np.diff(first, append=len(keys))
