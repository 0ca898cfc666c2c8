"""The weights of a transformer under Hugging Face's names, and back.

    tensors = hf_weights.to_hf(model)               # {"transformer.wte.weight": ..., ...}
    hf_weights.load(Path("gpt2-folder"), model)     # fills a model with a folder's weights

Ours keep queries, keys and values in one matrix, and gate and up in another; GPT-2 stores its
matrices transposed; Llama turns the numbers i and i + D/2 of a head together, ours 2i and 2i + 1.
"""

import logging
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from lm.huggingface import config as hf_config
from lm.models.base import LanguageModel
from lm.system import distributed, files
from lm.system.tensors import load_tensors

log = logging.getLogger(__name__)
Tensors = dict[str, Tensor]


class WeightIndex(msgspec.Struct):
    """model.safetensors.index.json: in which file each weight is."""

    weight_map: dict[str, str]


def to_hf(model: LanguageModel) -> Tensors:
    """All weights as the family's class names them. Missing biases are zeros."""
    kind = hf_config.family(model.cfg)
    ours = {name: p.detach() for name, p in model.named_parameters()}
    return _to_gpt2(model, ours) if kind == "gpt2" else _to_llama(model, ours)


def load(folder: Path, model: LanguageModel) -> None:
    """Fill `model`, built from hf_config.settings_of(folder), with the folder's weights.

    Raises ValueError naming what is missing or has another shape.
    """
    theirs = _read(folder)
    kind = hf_config.read(folder)["model_type"]
    try:
        ours = _from_gpt2(model, theirs) if kind == "gpt2" else _from_llama(model, theirs)
    except KeyError as error:
        raise ValueError(f"{folder} has no weight called {error}") from None
    V, rows = model.vocab_size, len(ours["wte.weight"])
    if rows < V:
        raise ValueError(f"{folder}: {rows} rows in the embedding, but its tokenizer has {V}")
    if rows > V:  # padded to a round number: rows that stand for no token
        log.info(f"{folder}: {rows - V} rows of the embedding stand for no token and are left out")
        for name in ("wte.weight", "head.weight"):
            if name in ours:
                ours[name] = ours[name][:V]
    if "wpe.weight" in ours:
        ours["wpe.weight"] = ours["wpe.weight"][: model.context_len]
    try:
        distributed.load_state_dict(model, {k: v.float() for k, v in ours.items()})
    except RuntimeError as error:
        raise ValueError(f"{folder} holds another model: {' '.join(str(error).split())}") from None


def _read(folder: Path) -> Tensors:
    """The tensors of model.safetensors, or of the files that its index lists."""
    if (folder / "model.safetensors").is_file():
        return load_tensors(folder / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise FileNotFoundError(
            f"{folder} has no model.safetensors: save it with transformers' save_pretrained (a "
            "pytorch_model.bin is a pickle, which could run code, and is not read)"
        )
    weight_map = files.read_record(index, WeightIndex).weight_map
    names = {Path(name).name for name in weight_map.values()}
    tensors: Tensors = {}
    for name in sorted(names):
        tensors |= load_tensors(folder / name)
    return tensors


def _turned(x: Tensor, n_head: int, inward: bool) -> Tensor:
    """Rows of queries or keys from our order of a head's numbers to Llama's, or back."""
    heads = x.unflatten(0, (n_head, -1))  # (H, D, ...)
    D = heads.shape[1]
    shape = (D // 2, 2) if inward else (2, D // 2)
    return heads.unflatten(1, shape).transpose(1, 2).flatten(0, 2)


# -------------------------------------------------------------------------------------- GPT-2

GPT2 = {  # ours in a block -> theirs; the matrices are transposed
    "norm_attn": "ln_1",
    "attn.qkv": "attn.c_attn",
    "attn.proj": "attn.c_proj",
    "norm_mlp": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}


def _to_gpt2(model: LanguageModel, ours: Tensors) -> Tensors:
    out = {
        "transformer.wte.weight": ours["wte.weight"],
        "transformer.wpe.weight": ours["wpe.weight"],
    }
    for i in range(model.cfg.n_layer):
        for mine, name in GPT2.items():
            weight = ours[f"blocks.{i}.{mine}.weight"]
            bias = ours.get(f"blocks.{i}.{mine}.bias", torch.zeros(len(weight)))
            out[f"transformer.h.{i}.{name}.weight"] = weight.T if weight.ndim == 2 else weight
            out[f"transformer.h.{i}.{name}.bias"] = bias
    norm = ours["norm.weight"]
    out["transformer.ln_f.weight"] = norm
    out["transformer.ln_f.bias"] = ours.get("norm.bias", torch.zeros_like(norm))
    if model.head is not None:
        out["lm_head.weight"] = ours["head.weight"]
    return out


def _from_gpt2(model: LanguageModel, theirs: Tensors) -> Tensors:
    # The base model is saved without the prefix, the one with a head with it.
    theirs = {k.removeprefix("transformer."): v for k, v in theirs.items()}
    out = {"wte.weight": theirs["wte.weight"], "wpe.weight": theirs["wpe.weight"]}
    for i in range(model.cfg.n_layer):
        for mine, name in GPT2.items():
            weight = theirs[f"h.{i}.{name}.weight"]
            out[f"blocks.{i}.{mine}.weight"] = weight.T if weight.ndim == 2 else weight
            out[f"blocks.{i}.{mine}.bias"] = theirs[f"h.{i}.{name}.bias"]
    out |= {f"norm.{what}": theirs[f"ln_f.{what}"] for what in ("weight", "bias")}
    if model.head is not None:
        out["head.weight"] = theirs["lm_head.weight"]
    return out


# -------------------------------------------------------------------------------------- Llama

LLAMA = {  # ours in a block -> theirs, stacked in this order
    "norm_attn": ("input_layernorm",),
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.o_proj",),
    "norm_mlp": ("post_attention_layernorm",),
    "mlp.up": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down": ("mlp.down_proj",),
}


def _heads(model: LanguageModel, name: str) -> int:
    """How many heads turn together in this matrix; 0: none, it has no positions."""
    cfg = model.cfg
    return {"self_attn.q_proj": cfg.n_head, "self_attn.k_proj": cfg.n_kv_head or cfg.n_head}.get(
        name, 0
    )


def _to_llama(model: LanguageModel, ours: Tensors) -> Tensors:
    out = {
        "model.embed_tokens.weight": ours["wte.weight"],
        "model.norm.weight": ours["norm.weight"],
    }
    rows = model.stacked_rows()
    for i in range(model.cfg.n_layer):
        for mine, names in LLAMA.items():
            for what in ("weight", "bias"):
                stacked = ours.get(f"blocks.{i}.{mine}.{what}")
                if stacked is None:
                    continue
                sizes = rows.get(f"blocks.{i}.{mine}", (len(stacked),))
                for name, part in zip(names, stacked.split(sizes), strict=True):
                    n = _heads(model, name)
                    part = _turned(part, n, inward=True) if n else part
                    out[f"model.layers.{i}.{name}.{what}"] = part
    if model.head is not None:
        out["lm_head.weight"] = ours["head.weight"]
    return out


def _from_llama(model: LanguageModel, theirs: Tensors) -> Tensors:
    theirs = {k.removeprefix("model."): v for k, v in theirs.items()}
    out = {"wte.weight": theirs["embed_tokens.weight"], "norm.weight": theirs["norm.weight"]}
    for i in range(model.cfg.n_layer):
        for mine, names in LLAMA.items():
            whats = ("weight", "bias") if model.cfg.bias and "norm" not in mine else ("weight",)
            for what in whats:
                parts = []
                for name in names:
                    part, n = theirs[f"layers.{i}.{name}.{what}"], _heads(model, name)
                    parts.append(_turned(part, n, inward=False) if n else part)
                out[f"blocks.{i}.{mine}.{what}"] = torch.cat(parts)
    if model.head is not None:
        out["head.weight"] = theirs["lm_head.weight"]
    return out
