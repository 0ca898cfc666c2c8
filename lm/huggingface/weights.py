"""The weights of a transformer under Hugging Face's names, and back.

    tensors = weights.to_hf(model)                  # {"transformer.wte.weight": ..., ...}
    weights.load(Path("gpt2-folder"), model)        # fills a model with a folder's weights

Ours has queries, keys and values in one matrix, and gate and up in another. GPT-2 stores its
matrices transposed; what the others do otherwise is in rotary_weights.py.
"""

import logging
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from lm.config import ModelConfig, TransformerConfig
from lm.huggingface import config_json, families, rotary_weights
from lm.models.base import LanguageModel
from lm.models.parametrization import score_factor
from lm.models.transformer import Transformer
from lm.system import distributed, files
from lm.system.tensors import load_shapes, load_tensors, shapes_alone

log = logging.getLogger(__name__)
# A row for each token, of which some may be padding, or for each place, of which a run may use less
ANY_ROWS = ("wte.weight", "embed_tokens.weight", "lm_head.weight", "wpe.weight")
Tensors = dict[str, Tensor]


class WeightIndex(msgspec.Struct):
    """model.safetensors.index.json: in which file each weight is."""

    weight_map: dict[str, str]


def to_hf(model: LanguageModel) -> Tensors:
    """All weights under the names of the model's family; biases that ours lacks are zeros.

    Raises ValueError if no class of transformers computes this model.
    """
    family = families.family(model.cfg)
    assert isinstance(model, Transformer)
    ours = {name: p.detach() for name, p in model.named_parameters()}
    factor = score_factor(model.cfg)  # theirs divide scores by the root of the head's width alone
    if factor != 1 and family == "nanochat":
        raise ValueError(
            "NanoChat cannot scale what attention's normed queries score, as heads of another "
            "width than the base's do: train with model.embed_norm=false model.softcap=0"
        )
    if factor != 1 and family != "apertus":  # whose normed queries have gains for it
        ours |= _with_queries_scaled(model, ours, factor)
    if family == "gpt2":
        return _to_gpt2(model, ours)
    return rotary_weights.to_family(model, ours, family)


def _with_queries_scaled(model: Transformer, ours: Tensors, factor: float) -> Tensors:
    """The weights and biases that give queries, keys and values, those of queries scaled."""
    scaled = {}
    for name, tensor in ours.items():
        if ".attn.qkv." in name:
            scaled[name] = tensor.clone()
            scaled[name][: model.cfg.n_embd] *= factor
    return scaled


def load(folder: Path, model: LanguageModel) -> None:
    """Fill `model`, built from config_json.settings_of(folder), with the folder's weights.

    Raises FileNotFoundError or ValueError naming what is missing, has another shape, or holds
    values that are not finite.
    """
    assert isinstance(model, Transformer)
    ours = _as_ours(folder, model, _read(folder))
    for name, tensor in ours.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{folder}: {name}, as we call it, has values that are not finite")
    V = model.vocab_size
    n_rows = len(ours["wte.weight"])
    if n_rows < V:
        raise ValueError(f"{folder}: {n_rows} rows in the embedding, but its tokenizer has {V}")
    if n_rows > V:  # the embedding was padded to a round number
        log.info(f"{folder}: {n_rows - V} rows of the embedding stand for no token and are dropped")
        for name in ("wte.weight", "head.weight"):
            if name in ours:
                ours[name] = ours[name][:V]
    if "wpe.weight" in ours:
        ours["wpe.weight"] = ours["wpe.weight"][: model.context_len]
    try:
        distributed.load_state_dict(model, ours)
    except RuntimeError as error:
        raise ValueError(f"{folder} holds another model: {' '.join(str(error).split())}") from None


def check_fits(folder: Path, cfg: ModelConfig) -> None:
    """Raise ValueError, before memory is taken, if the folder's files hold another model than the
    one that `cfg`, from its config.json, describes."""
    found = {}
    for path in _paths(folder):
        for name, shape in load_shapes(path, links=True).items():
            found[_without_prefix(name)] = shape
    assert isinstance(cfg, TransformerConfig)
    if len(found) < cfg.n_layer:  # or a thousand layers would be made
        raise ValueError(
            f"{folder} holds another model: {len(found)} weights, and {config_json.FILE} says "
            f"{cfg.n_layer} layers"
        )
    with shapes_alone():
        expected = to_hf(cfg.build(1))  # with a vocabulary of one
    for name, tensor in expected.items():
        name = _without_prefix(name)
        shape = list(tensor.shape)
        saved = found.get(name)
        if saved is None:
            raise ValueError(f"{folder} has no weight called {name!r}")
        if name in ANY_ROWS and saved[1:] == shape[1:] and saved >= shape:
            continue
        if saved != shape:
            raise ValueError(
                f"{folder} holds another model: {name} is {saved}, and {config_json.FILE} makes it "
                f"{shape}"
            )


def _without_prefix(name: str) -> str:
    """The name of a weight in the base model, which is saved without the prefix."""
    return name.removeprefix("transformer.").removeprefix("model.")


def _as_ours(folder: Path, model: Transformer, theirs: Tensors) -> Tensors:
    """The folder's weights by our names; ValueError for what is missing or has no such shape."""
    family = config_json.read(folder)["model_type"]
    theirs = {name: tensor.float() for name, tensor in theirs.items() if tensor.is_floating_point()}
    try:
        if family == "gpt2":
            ours = _from_gpt2(model, theirs)
        else:
            ours = rotary_weights.from_family(model, theirs, family)
        if family == "apertus":
            rotary_weights.check_gains(folder, theirs, model.cfg.n_layer)
    except KeyError as error:
        raise ValueError(
            f"{folder} has no weight called {error}, of floating-point numbers"
        ) from None
    except (RuntimeError, IndexError) as error:  # heads of another size, parts that do not fit
        raise ValueError(f"{folder} holds another model: {' '.join(str(error).split())}") from None
    n_dims = {name: tensor.ndim for name, tensor in model.state_dict().items()}
    for name, tensor in ours.items():
        if tensor.ndim != n_dims[name]:
            raise ValueError(
                f"{folder} holds another model: {name}, as we call it, is {tuple(tensor.shape)}, "
                f"and has {n_dims[name]} dimensions"
            )
    return ours


def _read(folder: Path) -> Tensors:
    """The tensors of model.safetensors, or of the files that its index lists."""
    paths = _paths(folder)
    tensors: Tensors = {}
    for path in paths:
        tensors |= load_tensors(path, links=True)
    return tensors


def _paths(folder: Path) -> list[Path]:
    """The folder's model.safetensors, or the files that its index lists."""
    if (folder / "model.safetensors").exists():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        raise FileNotFoundError(
            f"{folder} has no model.safetensors: save it with transformers' save_pretrained (a "
            "pytorch_model.bin is a pickle, which could run code, and is not read)"
        )
    weight_map = files.read_record(index, WeightIndex, links=True).weight_map
    names = {Path(name).name for name in weight_map.values()}  # none outside the folder
    return [folder / name for name in sorted(names)]


# -------------------------------------------------------------------------------------- GPT-2

GPT2 = {  # ours in a block -> theirs; the matrices are transposed
    "norm_attn": "ln_1",
    "attn.qkv": "attn.c_attn",
    "attn.proj": "attn.c_proj",
    "norm_mlp": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}


def _to_gpt2(model: Transformer, ours: Tensors) -> Tensors:
    theirs = {
        "transformer.wte.weight": ours["wte.weight"],
        "transformer.wpe.weight": ours["wpe.weight"],
    }
    for i in range(model.cfg.n_layer):
        for mine, name in GPT2.items():
            weight = ours[f"blocks.{i}.{mine}.weight"]
            bias = ours.get(f"blocks.{i}.{mine}.bias", torch.zeros(len(weight)))
            theirs[f"transformer.h.{i}.{name}.weight"] = _transpose(weight)
            theirs[f"transformer.h.{i}.{name}.bias"] = bias
    norm = ours["norm.weight"]
    theirs["transformer.ln_f.weight"] = norm
    theirs["transformer.ln_f.bias"] = ours.get("norm.bias", torch.zeros_like(norm))
    if model.head is not None:
        theirs["lm_head.weight"] = ours["head.weight"]
    return theirs


def _from_gpt2(model: Transformer, theirs: Tensors) -> Tensors:
    # The base model is saved without the prefix, the one with a head with it.
    theirs = {name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
    ours = {"wte.weight": theirs["wte.weight"], "wpe.weight": theirs["wpe.weight"]}
    for i in range(model.cfg.n_layer):
        for mine, name in GPT2.items():
            ours[f"blocks.{i}.{mine}.weight"] = _transpose(theirs[f"h.{i}.{name}.weight"])
            ours[f"blocks.{i}.{mine}.bias"] = theirs[f"h.{i}.{name}.bias"]
    ours["norm.weight"] = theirs["ln_f.weight"]
    ours["norm.bias"] = theirs["ln_f.bias"]
    if model.head is not None:
        ours["head.weight"] = theirs["lm_head.weight"]
    return ours


def _transpose(weight: Tensor) -> Tensor:
    """The matrix transposed; the gain of a norm, a vector, as it is."""
    return weight.T if weight.ndim == 2 else weight
