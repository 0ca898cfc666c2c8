"""What the lens shows of a forward pass, as plain values that JSON can hold.

views.next_tokens(logp, ids)      # the ten likeliest tokens at each position

`View` is what page.py makes and what terminal.py and web/*.js read: a key is changed in all.
"""

import base64
import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lm.generate import sample, uniform_draws
from lm.lens import axes, probe
from lm.lens.axes import Axis
from lm.lens.tracing import Attention, Trace
from lm.models.base import LanguageModel

N_TOP = 10  # tokens listed at a position
N_LAYER_TOP = 3  # of them, for each layer
N_DRAWS = 16
MAX_MAPS = 2_500_000  # bytes of attention on the page: a third more as text
MAX_CELLS = 10_000  # layers times positions of the logit lens: 0.7 MB on the page
MAX_LOGITS = 400_000  # numbers: above, the sampling step is shown at the last position alone

Values = dict[str, Any]  # what JSON can hold


class View(TypedDict):
    """One model and one text of T tokens."""

    about: Values  # the model, the run, the prompt
    vocab: list[str]  # each token of the vocabulary, for the eye
    tokens: list[Values]  # (T,) those of the text
    bits: list[float | None]  # (T,) what each token cost
    shapes: Values  # the steps of the forward pass
    values: Values  # their numbers
    embeddings: Values | None
    attention: Values
    layers: Values | None  # what each layer would predict
    next: list[Values]  # (T,) the likeliest next tokens
    sampling: Values  # logits and draws
    bigram: Values  # counts of the training text
    training: Values  # one step of training
    matrices: dict[str, Values]  # the parameters that fit, by name


def packed(numbers: np.ndarray) -> str:
    """The bytes of an array as text, in little-endian order."""
    return base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """The bytes that `packed` wrote, (n,) uint8."""
    return np.frombuffer(base64.b64decode(text), np.uint8)


def rounded(values: Tensor, digits: int = 4) -> list[float]:
    """Values (n,) with fewer digits, to save room on the page."""
    return [round(value, digits) for value in values.tolist()]


def token_bits(logp: Tensor, ids: Tensor) -> list[float | None]:
    """What each token of ids (T,) cost in bits, by log-probabilities (T, V).

    None for the first, which nothing predicts.
    """
    nats = -logp[:-1].gather(1, ids[1:, None]).squeeze(1)  # (T - 1,)
    return [None, *rounded(nats / math.log(2))]


# --------------------------------------------------------------------------------- 1 shapes


def shapes(
    model: LanguageModel, trace: Trace, axes_of_steps: list[list[Axis]], batch_size: int
) -> Values:
    """The steps in order, with the axes of each output, and the sizes of a training batch."""
    layers = list(probe.layers_of(model))
    rows: list[Values] = []
    for step, step_axes in zip(trace.steps, axes_of_steps, strict=True):
        row: Values = {
            "path": step.path,
            "kind": step.kind,
            "layer": _layer_index(step.path, layers),
            "axes": [[a.letter, a.size, a.per_batch, a.per_position] for a in step_axes],
            "inputs": [list(shape) for shape in step.inputs],
            "params": {name: list(shape) for name, shape in step.params.items()},
            "n_params": step.n_params,
            "flops": step.flops,
            "note": step.note,
        }
        if not model.trainable:
            row["path"] = step.path or "counts"
            row["n_params"] = model.n_params()
        rows.append(row)
    first_layer = [row for row in rows if row["layer"] == 0]
    return {
        "steps": rows,
        "axes": _legend([axis for step_axes in axes_of_steps for axis in step_axes]),
        "n_layer": len(layers),
        "layer_flops": sum(row["flops"] for row in first_layer),
        "layer_params": sum(row["n_params"] for row in first_layer),
        "training": {"B": batch_size, "T": model.context_len},
    }


def _layer_index(path: str, layers: Sequence[str]) -> int | None:
    """Which of the layers the module at `path` is in."""
    for i, layer in enumerate(layers):
        if path == layer or path.startswith(f"{layer}."):
            return i
    return None


def _legend(all_axes: Sequence[Axis]) -> dict[str, str]:
    """The meanings of the letters that occur."""
    letters = set("BTV")
    for axis in all_axes:
        letters.update(axis.letter)
    legend = {letter: text for letter, text in axes.MEANINGS.items() if letter in letters}
    if not any("+" in axis.letter and axis.per_position for axis in all_axes):
        legend["T"] = legend["T"].partition(" (")[0]
    return legend


# ------------------------------------------------------------------------------ 4 attention


def attention(trace: Trace, max_bytes: int = MAX_MAPS) -> Values:
    """Weights and values of every layer and head, a byte a number; fewer if above max_bytes."""
    maps = trace.attention
    if not maps:
        return {"layers": []}
    T = maps[0].weights.shape[-1]
    lower = torch.tril_indices(T, T)  # (2, T (T + 1) / 2)
    of_head = lower.shape[1]  # bytes
    for layer in maps:
        if layer.values is not None:
            of_head = max(of_head, lower.shape[1] + layer.values[0, 0].numel())
    n_heads = max(layer.weights.shape[1] for layer in maps)
    n_layers = min(len(maps), max(1, max_bytes // (of_head * n_heads)))
    n_heads = max(1, min(n_heads, max_bytes // of_head))  # fewer where not even one layer fits
    layers = []
    for i in _spread(len(maps), n_layers):
        layers.append({"layer": i, **_attention_map(maps[i], lower, n_heads)})
    return {"layers": layers, "n_all": len(maps)}


def _spread(n: int, n_chosen: int) -> list[int]:
    """So many of the numbers 0 to n - 1, evenly spaced, with the last one among them."""
    last = n - 1
    return sorted({last - round(k * last / max(1, n_chosen - 1)) for k in range(n_chosen)})


def _attention_map(layer: Attention, lower: Tensor, n_heads: int) -> Values:
    weights = layer.weights[0, :n_heads].nan_to_num()  # (H, T, T)
    shown = (weights[:, lower[0], lower[1]] * 255).round().byte()
    row: Values = {
        "path": layer.path,
        "H": weights.shape[0],
        "all_heads": layer.weights.shape[1],
        "error": layer.error,
        "weights": packed(shown.numpy()),
    }
    if layer.values is not None:
        values = layer.values[0, :n_heads].nan_to_num()  # (H, T, D)
        scale = float(values.abs().max()) or 1.0
        row["D"] = values.shape[-1]
        row["scale"] = scale
        row["values"] = packed((values / scale * 127).round().to(torch.int8).numpy())
    return row


# ------------------------------------------------------------------- 5 logit lens, sampling


def logit_lens(model: LanguageModel, trace: Trace, ids: Tensor) -> Values | None:
    """What the head would predict from each layer's output (nostalgebraist 2020).

    Beside it, how near that output still is to the embedding and already is to the last one. Of
    very many layers some are left out. None if there are no layers to read.
    """
    if not trace.layers:
        return None
    first = trace.layers[0][1][0]  # (T, C)
    final = trace.layers[-1][1][0]
    rows = []
    n_layers = min(len(trace.layers), max(2, MAX_CELLS // len(ids)))
    for i in _spread(len(trace.layers), n_layers):
        path, output = trace.layers[i]
        with torch.no_grad():
            logits = probe.unembed(model, output)  # (1, T, V)
        if logits is None:
            continue
        x = output[0]  # (T, C)
        logp = logits[0].log_softmax(dim=-1)
        top = logp.topk(min(N_LAYER_TOP, logp.shape[-1]))
        row: Values = {
            "path": path,
            "top": top.indices.tolist(),
            "p": [rounded(p) for p in top.values.exp()],
            "bits": token_bits(logp, ids),
            "norm": rounded(x.norm(dim=-1), 3),
        }
        if first.shape == x.shape:
            row["to_first"] = rounded(F.cosine_similarity(x, first, dim=-1), 3)
        if final.shape == x.shape:
            row["to_last"] = rounded(F.cosine_similarity(x, final, dim=-1), 3)
        rows.append(row)
    return {"rows": rows} if rows else None


def next_tokens(logp: Tensor, ids: Tensor) -> list[Values]:
    """At each position: the likeliest next tokens, the entropy in bits, and the one that came."""
    entropy = -(logp.exp() * logp).nan_to_num(0.0).sum(dim=-1) / math.log(2)  # (T,)
    top = logp.topk(min(N_TOP, logp.shape[-1]))
    rows = []
    for t in range(len(ids)):
        row: Values = {
            "ids": top.indices[t].tolist(),
            "p": rounded(top.values[t].exp(), 5),
            "entropy": round(float(entropy[t]), 3),
        }
        if t + 1 < len(ids):
            came = ids[t + 1]
            row["came"] = int(came)
            row["p_came"] = round(float(logp[t, came].exp()), 6)
            row["rank"] = int((logp[t] > logp[t, came]).sum()) + 1
        rows.append(row)
    return rows


def sampling(logits: Tensor, seed: int, temperature: float, top_k: int, top_p: float) -> Values:
    """Logits (T, V) in 16 bits a number, and the draws lm.sample makes with these seeds."""
    T, V = logits.shape
    positions = range(T) if T * V <= MAX_LOGITS else [T - 1]
    draws = []
    for draw_seed in range(seed, seed + N_DRAWS):
        draws.append({"seed": draw_seed, "u": uniform_draws(draw_seed, 1, 1).item()})
    first_draw = torch.tensor([draws[0]["u"]])
    drawn = sample(logits[-1:].float(), first_draw, temperature, top_k, top_p)
    return {
        "rows": [{"t": t, **_logits(logits[t])} for t in positions],
        "draws": draws,
        "drawn": int(drawn),
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }


def _logits(row: Tensor) -> Values:
    """Logits (V,) to draw from; nothing where one is infinite or not a number."""
    shown = row.clamp(min=-1e4)
    return quantized(shown) if shown.isfinite().all() else {}


def quantized(values: Tensor) -> Values:
    """Finite values of any shape as low + step * n, where n has 16 bits."""
    numbers = values.double()
    low = float(numbers.min())
    step = (float(numbers.max()) - low) / 65535 or 1.0
    n = ((numbers - low) / step).round().cpu().numpy().astype("<u2")
    return {"low": low, "step": step, "numbers": packed(n)}
