"""What followed each token of a text in the training text, and what a bigram learns from that."""

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from lm.config import BigramCountsConfig
from lm.lens.views import Values, rounded
from lm.models.bigram_counts import BigramCounts
from lm.optim.groups import AdamW

N_TOP = 8  # tokens listed after each
BIGRAM_STEPS = 400
N_GRID = 40  # tokens on each side of the table that is drawn


def bigram(train_ids: np.ndarray, vocab_size: int, ids: Tensor) -> Values:
    """For each token of ids (T,): the tokens that followed it in the training text (n,).

    Beside the counts, what a neural bigram learns from the same pairs, and what the text costs in
    bits by either.
    """
    model = BigramCounts(BigramCountsConfig(), vocab_size)
    model.fit(train_ids)
    firsts = ids.unique()  # (U,), in order
    table = _table(model, firsts)  # (U, V)
    counted = model(firsts[None])[0].exp()  # (U, V)
    learned = neural_bigram(table)  # (U, V)
    rows = {}
    for row, first in enumerate(firsts.tolist()):
        top = table[row].topk(min(N_TOP, vocab_size))
        occurs = top.values > 0
        top_learned = learned[row].topk(min(N_TOP, vocab_size))
        rows[first] = {
            "total": int(table[row].sum()),
            "ids": top.indices[occurs].tolist(),
            "counts": [int(n) for n in top.values[occurs]],
            "p": rounded(counted[row, top.indices[occurs]], 5),
            "neural_ids": top_learned.indices.tolist(),
            "neural_p": rounded(top_learned.values, 5),
        }
    return {
        "rows": rows,
        "grid": _grid(model),
        "n_pairs": int(model.get_buffer("counts").sum()),
        "bits": {
            "counts": _bits(counted, firsts, ids),
            "neural": _bits(learned, firsts, ids),
        },
        "steps": BIGRAM_STEPS,
    }


def _grid(model: BigramCounts) -> Values:
    """The counts of pairs of the most frequent tokens, in the order of their ids."""
    totals = model.get_buffer("totals")  # (V,)
    most = totals.topk(min(N_GRID, model.vocab_size)).indices
    ids = most[totals[most] > 0].sort().values  # (G,)
    return {
        "ids": ids.tolist(),
        "totals": totals[ids].tolist(),
        "counts": _table(model, ids)[:, ids].long().tolist(),  # (G, G)
    }


def _table(model: BigramCounts, firsts: Tensor) -> Tensor:
    """How often each token followed those of firsts (U,), as float (U, V)."""
    V = model.vocab_size
    starts = model.get_buffer("starts")
    pairs = model.get_buffer("pairs")
    counts = model.get_buffer("counts")
    table = torch.zeros(len(firsts), V)
    for row, first in enumerate(firsts.tolist()):
        start, end = starts[first], starts[first + 1]
        table[row, pairs[start:end] % V] = counts[start:end].float()
    return table


def _bits(probs: Tensor, firsts: Tensor, ids: Tensor) -> list[float | None]:
    """What each token of ids (T,) cost, by probabilities (U, V) after each of firsts (U,)."""
    row_of = {first: row for row, first in enumerate(firsts.tolist())}
    tokens = ids.tolist()
    bits: list[float | None] = [None]
    for before, after in itertools.pairwise(tokens):
        p = float(probs[row_of[before], after])
        bits.append(round(-math.log2(max(p, 1e-30)), 4))
    return bits


def neural_bigram(table: Tensor) -> Tensor:
    """Probabilities (U, V) that a table of logits learns by gradient from counts (U, V).

    The rows of lm.models.bigram are independent, so these few are learned as in the whole of it,
    from zero, by Adam on the loss over all pairs at once.
    """
    with torch.enable_grad():
        logits = torch.zeros_like(table).requires_grad_()
        optimizer = AdamW([logits], lr=0.1, weight_decay=0.0)
        share = table / table.sum(dim=1, keepdim=True).clamp(min=1)
        for _ in range(BIGRAM_STEPS):
            loss = -(share * logits.log_softmax(dim=-1)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return logits.detach().softmax(dim=-1)
