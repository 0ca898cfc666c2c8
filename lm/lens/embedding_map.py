"""A map of the embeddings: tokens that the model uses alike lie near each other."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lm.lens.views import Values, rounded

N_POINTS = 1500  # tokens drawn in the map
N_NEAR = 6
BLOCK = 1 << 24  # tokens counted at a time: numpy takes 8 bytes for each


def embeddings(
    tables: Iterable[tuple[int, Tensor]], in_text: list[int], train_ids: np.ndarray | None = None
) -> Values | None:
    """A map of the last table (V, C) by its two main directions (PCA), and how it came about.

    `tables` are (step, table), the last one looked at. The map has where the same tokens lay in the
    earlier tables, the nearest tokens by angle, and how often each stands in the training text.
    None for a model without a table, or with one that is all zero or not finite.
    """
    known = [(step, table.float()) for step, table in tables]
    if not known:
        return None
    _, table = known[-1]
    if not table.any() or not table.square().sum().isfinite():  # nor may the squares overflow
        return None
    V = table.shape[0]
    shown = sorted({*in_text, *range(min(V, N_POINTS))})
    last = table[shown]  # (n, C)
    mean = last.mean(dim=0)
    centred = last - mean
    spread, directions = torch.linalg.eigh(centred.T @ centred)  # rising
    axes = directions[:, -2:].flip(1)  # (C, 2)
    if axes.shape[1] < 2:
        axes = F.pad(axes, (0, 2 - axes.shape[1]))
    frames = []
    for step, earlier in known:
        rows = earlier[shown]
        frames.append(
            {
                "step": step,
                "xy": rounded(((rows - mean) @ axes).flatten(), 3),
                "same": rounded(F.cosine_similarity(rows, last, dim=1), 3),
                "norm": rounded(rows.norm(dim=1), 3),
            }
        )
    unit = F.normalize(last, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)  # below all others: no token is its own neighbour
    near = cosines.topk(min(N_NEAR, max(1, len(shown) - 1)))
    return {
        "ids": shown,
        "n_all": V,
        "n_train": None if train_ids is None else _counts(train_ids, V)[shown].tolist(),
        "width": last.shape[1],
        "share": rounded(spread.flip(0)[:2] / spread.sum().clamp(min=1e-12)),
        "near": [[shown[j] for j in row] for row in near.indices.tolist()],
        "cosine": [rounded(row, 3) for row in near.values],
        "frames": frames,
    }


def _counts(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """How often each token occurs, (V,)."""
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, len(ids), BLOCK):
        counts += np.bincount(ids[start : start + BLOCK], minlength=vocab_size)
    return counts
