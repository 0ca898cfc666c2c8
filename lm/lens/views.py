"""What the lens shows, computed: each function turns tensors into plain values for the page.

views.next_tokens(logp, ids)      # the ten likeliest tokens at each position
"""

import base64
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.config import BigramCountsConfig
from lm.generate import sample, uniform_draws
from lm.lens import probe
from lm.models.base import LanguageModel
from lm.models.bigram_counts import BigramCounts
from lm.optim.groups import AdamW

N_TOP = 10  # tokens listed at a position
N_POINTS = 1500  # tokens drawn in the map of the embeddings
N_NEAR = 6
N_DRAWS = 16
BLOCK = 1 << 24  # tokens counted at a time
MAX_MAPS = 2_500_000  # bytes of attention on the page: a third more as text
MAX_LOGITS = 400_000  # numbers: above, the sampling step is shown at the last position alone
BIGRAM_STEPS = 400


def packed(numbers: np.ndarray) -> str:
    """The bytes of an array as text, in little-endian order."""
    return base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """The bytes that `packed` wrote, (n,) uint8."""
    return np.frombuffer(base64.b64decode(text), np.uint8)


def rounded(values: Iterable[float], digits: int = 4) -> list[float]:
    return [round(float(v), digits) for v in values]


# --------------------------------------------------------------------------------- 1 shapes


def shapes(
    model: LanguageModel, trace: probe.Trace, axes: list[list[probe.Axis]], batch_size: int
) -> dict[str, Any]:
    """The steps in order, with the axes of each output, and the sizes of a training batch."""
    layers = list(probe.layers_of(model))
    rows = []
    for step, row in zip(trace.steps, axes, strict=True):
        layer = next((i for i, p in enumerate(layers) if f"{step.path}.".startswith(p + ".")), None)
        rows.append(
            {
                "path": step.path or ("" if model.trainable else "counts"),
                "kind": step.kind,
                "layer": layer,
                "axes": [[a.letter, a.size, a.per_batch, a.per_position] for a in row],
                "inputs": [list(shape) for shape in step.inputs],
                "params": {name: list(shape) for name, shape in step.params.items()},
                "n_params": step.n_params if model.trainable else model.n_params(),
                "flops": step.flops,
                "note": step.note,
            }
        )
    meanings = dict(probe.AXES)
    if not any("+" in a.letter and a.per_position for row in axes for a in row):
        meanings["T"] = meanings["T"].partition(" (")[0]
    letters = {c for row in axes for a in row for c in a.letter} | {"B", "T", "V"}
    return {
        "steps": rows,
        "axes": {k: v for k, v in meanings.items() if k in letters},
        "n_layer": len(layers),
        "layer_flops": sum(s["flops"] for s in rows if s["layer"] == 0),
        "layer_params": sum(s["n_params"] for s in rows if s["layer"] == 0),
        "training": {"B": batch_size, "T": model.context_len},
    }


# ----------------------------------------------------------------------------- 3 embeddings


def embeddings(
    tables: Iterable[tuple[int, Tensor]], in_text: list[int], train_ids: np.ndarray | None = None
) -> dict[str, Any] | None:
    """A map of the last table by its two main directions (PCA), where the same tokens lay in the
    earlier tables, the nearest tokens by angle, and how often each stands in the training text.
    None for a model without a table, or with one of zeros."""
    known = list(tables)
    if not known or not known[-1][1].any():
        return None
    V = known[-1][1].shape[0]
    shown = sorted({*in_text, *range(min(V, N_POINTS))})
    last = known[-1][1].float()[shown]  # (n, C)
    mean = last.mean(dim=0)
    centred = last - mean
    spread, axes = torch.linalg.eigh(centred.T @ centred)  # rising
    axes = axes[:, -2:].flip(1)  # (C, 2)
    if axes.shape[1] < 2:
        axes = torch.nn.functional.pad(axes, (0, 2 - axes.shape[1]))
    unit = torch.nn.functional.normalize(last, dim=1)
    near = (unit @ unit.T).fill_diagonal_(-2).topk(min(N_NEAR, max(1, len(shown) - 1)))
    seen = None
    if train_ids is not None:  # in blocks, as numpy takes 8 bytes a token to count it
        blocks = (train_ids[a : a + BLOCK] for a in range(0, len(train_ids), BLOCK))
        seen = sum(np.bincount(block, minlength=V) for block in blocks)[shown].tolist()
    frames = []
    for step, table in known:
        rows = table.float()[shown]
        same = torch.nn.functional.cosine_similarity(rows, last, dim=1)
        frames.append(
            {
                "step": step,
                "xy": rounded(((rows - mean) @ axes).flatten().tolist(), 3),
                "same": rounded(same.tolist(), 3),
                "norm": rounded(rows.norm(dim=1).tolist(), 3),
            }
        )
    return {
        "ids": shown,
        "n_all": V,
        "n_train": seen,
        "width": last.shape[1],
        "share": rounded((spread.flip(0)[:2] / spread.sum().clamp(min=1e-12)).tolist()),
        "near": [[shown[j] for j in row] for row in near.indices.tolist()],
        "cosine": [rounded(row, 3) for row in near.values.tolist()],
        "frames": frames,
    }


# ------------------------------------------------------------------------------ 4 attention


def attention(trace: probe.Trace) -> dict[str, Any]:
    """Weights and values of every layer and head, a byte a number; fewer layers if too large."""
    found = trace.attention
    if not found:
        return {"layers": []}
    T = found[0].weights.shape[-1]
    lower = torch.tril_indices(T, T)
    size = sum(
        a.weights.shape[1] * lower.shape[1] + (a.values.numel() if a.values is not None else 0)
        for a in found
    )
    every = math.ceil(size / MAX_MAPS)
    kept = [(i, a) for i, a in enumerate(found) if i % every == 0 or i == len(found) - 1]
    layers = []
    for i, a in kept:
        weights = a.weights[0]  # (H, T, T)
        later = float(weights.triu(1).max()) if T > 1 else 0.0
        row = {
            "layer": i,
            "path": a.path,
            "H": weights.shape[0],
            "error": a.error,
            "later": later,  # weight on tokens that come later: 0 under a causal mask
            "weights": packed((weights[:, lower[0], lower[1]] * 255).round().byte().numpy()),
        }
        if a.values is not None:
            values = a.values[0]  # (H, T, D)
            scale = float(values.abs().max()) or 1.0
            row |= {
                "D": values.shape[-1],
                "scale": scale,
                "values": packed((values / scale * 127).round().to(torch.int8).numpy()),
            }
        layers.append(row)
    return {"layers": layers, "n_all": len(found)}


# ------------------------------------------------------------------- 5 logit lens, sampling


def logit_lens(model: LanguageModel, trace: probe.Trace, ids: Tensor) -> dict[str, Any] | None:
    """What the head would predict from each layer's output (nostalgebraist 2020), and how near
    that output still is to the embedding and already is to the last. None: no layers to read."""
    if not trace.layers:
        return None
    first, final = trace.layers[0][1][0], trace.layers[-1][1][0]  # (T, C)
    rows = []
    for path, x in trace.layers:
        with torch.no_grad():
            logits = probe.unembed(model, x)  # (1, T, V)
        if logits is None:
            continue
        logp = logits[0].log_softmax(dim=-1)
        top = logp.topk(min(3, logp.shape[-1]))
        row: dict[str, Any] = {
            "path": path,
            "top": top.indices.tolist(),
            "p": [rounded(r) for r in top.values.exp().tolist()],
            "bits": [None, *rounded(-logp[:-1].gather(1, ids[1:, None])[:, 0] / math.log(2))],
            "norm": rounded(x[0].norm(dim=-1), 3),
        }
        for key, other in (("to_first", first), ("to_last", final)):
            if other.shape == x[0].shape:
                row[key] = rounded(torch.nn.functional.cosine_similarity(x[0], other, dim=-1), 3)
        rows.append(row)
    return {"rows": rows} if rows else None


def next_tokens(logp: Tensor, ids: Tensor) -> list[dict[str, Any]]:
    """At each position: the likeliest next tokens, the entropy in bits, and the one that came."""
    entropy = -(logp.exp() * logp).nan_to_num(0.0).sum(dim=-1) / math.log(2)  # (T,)
    top = logp.topk(min(N_TOP, logp.shape[-1]))
    found = []
    for t in range(len(ids)):
        row: dict[str, Any] = {
            "ids": top.indices[t].tolist(),
            "p": rounded(top.values[t].exp(), 5),
            "entropy": round(float(entropy[t]), 3),
        }
        if t + 1 < len(ids):
            came = ids[t + 1]
            row |= {"came": int(came), "p_came": round(float(logp[t, came].exp()), 6)}
            row["rank"] = int((logp[t] > logp[t, came]).sum()) + 1
        found.append(row)
    return found


def sampling(
    logits: Tensor, seed: int, temperature: float, top_k: int, top_p: float
) -> dict[str, Any]:
    """Logits (T, V) in 16 bits a number, and the draws lm.sample makes with these seeds."""
    T, V = logits.shape
    positions = list(range(T)) if T * V <= MAX_LOGITS else [T - 1]
    rows = []
    for t in positions:
        values = logits[t].double().clamp(min=-1e4)
        low, high = float(values.min()), float(values.max())
        step = (high - low) / 65535 or 1.0
        numbers = ((values - low) / step).round().numpy().astype("<u2")
        rows.append({"t": t, "low": low, "step": step, "logits": packed(numbers)})
    draws = []
    for i in range(N_DRAWS):
        draw = uniform_draws(seed + i, 1, 1)
        draws.append({"seed": seed + i, "u": draw.item()})
    first = torch.tensor([draws[0]["u"]])
    return {
        "rows": rows,
        "draws": draws,
        "drawn": int(sample(logits[-1:].float(), first, temperature, top_k, top_p)),
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }


# --------------------------------------------------------------------------------- 6 bigram


def bigram(train_ids: np.ndarray, vocab_size: int, ids: Tensor) -> dict[str, Any]:
    """For each token of the text: how often which token followed it in the training text, and
    what a neural bigram learns from the same pairs."""
    counts = BigramCounts(BigramCountsConfig(), vocab_size)
    counts.fit(train_ids)
    firsts = ids.unique()  # (U,), in order
    table = torch.zeros(len(firsts), vocab_size)  # (U, V)
    for row, first in enumerate(firsts):
        start, end = counts.starts[first], counts.starts[first + 1]
        table[row, counts.pairs[start:end] % vocab_size] = counts.counts[start:end].float()
    learned = neural_bigram(table)  # (U, V)
    counted = counts(firsts[None])[0].exp()  # (U, V)
    rows = {}
    for row, first in enumerate(firsts.tolist()):
        top = table[row].topk(min(8, vocab_size))
        best = learned[row].topk(min(8, vocab_size))
        seen = top.values > 0
        rows[first] = {
            "total": int(table[row].sum()),
            "ids": top.indices[seen].tolist(),
            "counts": [int(n) for n in top.values[seen]],
            "p": rounded(counted[row, top.indices[seen]], 5),
            "neural_ids": best.indices.tolist(),
            "neural_p": rounded(best.values, 5),
        }
    place = {first: row for row, first in enumerate(firsts.tolist())}
    pairs = [(place[a], b) for a, b in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True)]
    bits = [
        [None, *(round(-math.log2(max(float(p[a, b]), 1e-30)), 4) for a, b in pairs)]
        for p in (counted, learned)
    ]
    return {
        "rows": rows,
        "n_pairs": int(counts.counts.sum()),
        "bits": dict(zip(("counts", "neural"), bits, strict=True)),
        "steps": BIGRAM_STEPS,
    }


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
