"""The weights of a transformer under the names of Llama, Apertus and NanoChat, and back.

    theirs = rotary_weights.to_family(model, ours, "llama")     # {"model.embed_tokens.weight": ...}
    ours = rotary_weights.from_family(model, theirs, "llama")

They rotate the numbers i and i + D/2 of a head together, ours 2i and 2i + 1; NanoChat's turn the
other way. NanoChat's norms have no gains: they move into the matrix that reads the norm's result,
that of the last norm into the head. Where queries and keys are normalised, by
x / sqrt(mean(x^2) + eps), eps is another there: the larger x, the less it counts, so both get the
length that makes up for it.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from lm.models.parametrization import score_factor
from lm.models.transformer import Transformer

Tensors = dict[str, Tensor]

ATTENTION = {  # ours in a block -> theirs, stacked in this order
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.o_proj",),
}
ROTARY = {
    "llama": ATTENTION
    | {
        "norm_attn": ("input_layernorm",),
        "norm_mlp": ("post_attention_layernorm",),
        "mlp.up": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down": ("mlp.down_proj",),
    },
    "apertus": ATTENTION
    | {
        "norm_attn": ("attention_layernorm",),
        "norm_mlp": ("feedforward_layernorm",),
        "mlp.up": ("mlp.up_proj",),
        "mlp.down": ("mlp.down_proj",),
    },
    "nanochat": ATTENTION | {"mlp.up": ("mlp.fc1",), "mlp.down": ("mlp.fc2",)},
}
# Of Apertus alone: gains of the normalised queries and keys, which ours has not
QK_GAINS = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")


def to_family(model: Transformer, ours: Tensors, family: str) -> Tensors:
    """The family's tensors by its names, made of ours by our names."""
    if family == "nanochat":
        ours = _without_gains(model, ours)
    theirs = {"model.embed_tokens.weight": ours["wte.weight"]}
    if "norm.weight" in ours:
        theirs["model.norm.weight"] = ours["norm.weight"]
    if "head.weight" in ours:
        theirs["lm_head.weight"] = ours["head.weight"]
    rows = model.stacked_rows()
    n_head = _rotated_heads(model)
    for i in range(model.cfg.n_layer):
        for mine, names in ROTARY[family].items():
            for kind in ("weight", "bias"):
                stacked = ours.get(f"blocks.{i}.{mine}.{kind}")
                if stacked is None:
                    continue
                sizes = rows.get(f"blocks.{i}.{mine}", (len(stacked),))
                for name, part in zip(names, stacked.split(sizes), strict=True):
                    if name in n_head:
                        part = _heads_to(part, n_head[name], family) * _qk_scale(model)
                    theirs[f"model.layers.{i}.{name}.{kind}"] = part
        if family == "apertus":
            ones = ours["wte.weight"].new_ones(model.cfg.n_embd // model.cfg.n_head)
            for name, gain in zip(QK_GAINS, (score_factor(model.cfg), 1.0), strict=True):
                theirs[f"model.layers.{i}.{name}"] = ones * gain
    return theirs


def from_family(model: Transformer, theirs: Tensors, family: str) -> Tensors:
    """Our tensors by our names, made of the family's; KeyError where one is missing."""
    theirs = {name.removeprefix("model."): tensor for name, tensor in theirs.items()}
    n_head = _rotated_heads(model)
    ours = {"wte.weight": theirs["embed_tokens.weight"]}
    if family == "nanochat":
        gains = [name for name in model.state_dict() if "norm" in name]
        ours |= {name: torch.ones(model.cfg.n_embd) for name in gains}
    else:
        ours["norm.weight"] = theirs["norm.weight"]
    if model.head is not None:
        ours["head.weight"] = theirs["lm_head.weight"]
    for i in range(model.cfg.n_layer):
        for mine, names in ROTARY[family].items():
            has_bias = model.cfg.bias and not mine.startswith("norm")  # RMSNorm has none
            for kind in ("weight", "bias") if has_bias else ("weight",):
                parts = []
                for name in names:
                    part = theirs[f"layers.{i}.{name}.{kind}"]
                    if name in n_head:
                        part = _heads_from(part, n_head[name], family) / _qk_scale(model)
                    parts.append(part)
                ours[f"blocks.{i}.{mine}.{kind}"] = torch.cat(parts)
    return ours


def _rotated_heads(model: Transformer) -> dict[str, int]:
    """The number of heads in each matrix whose output is rotated by position, by Llama's name."""
    n_head = model.cfg.n_head
    return {"self_attn.q_proj": n_head, "self_attn.k_proj": model.cfg.n_kv_head or n_head}


def _heads_to(x: Tensor, n_head: int, family: str) -> Tensor:
    """The rows (H * D, ...) of our queries or keys in the order of the family.

    In ours the pairs of numbers that rotate together are neighbours: a, b, a, b. In the others each
    head has all a before all b, and in NanoChat all b before all a, as it turns a towards -b.
    """
    pairs = x.unflatten(0, (n_head, -1, 2))  # (H, D/2, 2, ...)
    if family == "nanochat":
        pairs = pairs.flip(2)
    return pairs.transpose(1, 2).flatten(0, 2)


def _heads_from(x: Tensor, n_head: int, family: str) -> Tensor:
    """The family's rows (H * D, ...) of queries or keys in our order: undoes `_heads_to`."""
    pairs = x.unflatten(0, (n_head, 2, -1)).transpose(1, 2)  # (H, D/2, 2, ...)
    if family == "nanochat":
        pairs = pairs.flip(2)
    return pairs.flatten(0, 2)


def _qk_scale(model: Transformer) -> float:
    """How many times as long queries and keys are in the other families as in ours.

    Where they are normalised, ours adds float32's smallest step to the mean of squares, the others
    the eps of all their norms.
    """
    if not model.cfg.qk_norm:
        return 1.0
    return math.sqrt(model.cfg.norm_eps / torch.finfo(torch.float32).eps)


def _without_gains(model: Transformer, ours: Tensors) -> Tensors:
    """The same function without gains in the norms: each is in the matrix that is applied next."""
    folded = {name: tensor for name, tensor in ours.items() if "norm" not in name}
    for i in range(model.cfg.n_layer):
        for norm, matrix in (("norm_attn", "attn.qkv"), ("norm_mlp", "mlp.up")):
            name = f"blocks.{i}.{matrix}.weight"
            folded[name] = ours[name] * ours[f"blocks.{i}.{norm}.weight"]
    head = ours["wte.weight"] if model.head is None else ours["head.weight"]
    folded["head.weight"] = head * ours["norm.weight"]
    return folded


def check_gains(folder: Path, theirs: Tensors, n_layer: int) -> None:
    """Raise ValueError if Apertus's normalised queries or keys have gains, which ours have not."""
    theirs = {name.removeprefix("model."): tensor for name, tensor in theirs.items()}
    for i in range(n_layer):
        for gain in QK_GAINS:
            name = f"layers.{i}.{gain}"
            if not torch.equal(theirs[name], torch.ones_like(theirs[name])):
                raise ValueError(f"{folder}: {name} has gains other than 1, and ours has none")
