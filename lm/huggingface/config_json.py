"""Our settings of a transformer as a config.json of transformers, and back.

    config_json.to_hf(cfg.model, vocab_size, eot_id)  # {"model_type": "gpt2", "n_layer": 4, ...}
    config_json.settings_of(Path("gpt2-folder"))  # {"name": "transformer", "n_layer": 12, ...}

Does not need torch, so that the launcher can read settings before torch is loaded.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from lm.config import Config, ModelConfig, TransformerConfig
from lm.huggingface import families
from lm.system import files
from lm.system.errors import ConfigError

FILE = "config.json"
# Our name of a setting -> theirs, where they differ
GPT2_KEYS = {"n_mlp": "n_inner", "context_len": "n_positions", "norm_eps": "layer_norm_epsilon"}
LLAMA_KEYS = {
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_embd": "hidden_size",
    "n_mlp": "intermediate_size",
    "context_len": "max_position_embeddings",
    "rope_base": "rope_theta",
    "norm_eps": "rms_norm_eps",
    "softcap": "final_logit_softcapping",
}


def to_hf(cfg: ModelConfig, vocab_size: int, eot_id: int | None) -> dict[str, object]:
    """The values of the model's config.json; ValueError if no family can express it."""
    name = families.family(cfg)
    assert isinstance(cfg, TransformerConfig), "no other model has a family"
    shared = {
        "model_type": name,
        "architectures": [families.CLASSES[name]],
        "vocab_size": vocab_size,
        "bos_token_id": eot_id,
        "eos_token_id": eot_id,
        "tie_word_embeddings": cfg.tie,
        "torch_dtype": "float32",
        "use_cache": True,
    }
    n_mlp = cfg.n_mlp
    if not n_mlp:
        n_mlp = 8 * math.ceil(cfg.n_embd / 3) if cfg.activation == "swiglu" else 4 * cfg.n_embd
    if name == "gpt2":
        return shared | {
            "n_embd": cfg.n_embd,
            "n_layer": cfg.n_layer,
            "n_head": cfg.n_head,
            "n_inner": n_mlp,
            "n_positions": cfg.context_len,
            "activation_function": families.ACTIVATIONS[cfg.activation],
            "layer_norm_epsilon": cfg.norm_eps,
            "attn_pdrop": cfg.dropout,
            "embd_pdrop": cfg.dropout,
            "resid_pdrop": cfg.dropout,
        }
    values: dict[str, object] = shared | {
        "hidden_size": cfg.n_embd,
        "intermediate_size": n_mlp,
        "num_hidden_layers": cfg.n_layer,
        "num_attention_heads": cfg.n_head,
        "num_key_value_heads": cfg.n_kv_head or cfg.n_head,
        "head_dim": cfg.n_embd // cfg.n_head,
        "max_position_embeddings": cfg.context_len,
        "rope_theta": cfg.rope_base,  # where transformers 4 reads it, and 5
        "rope_parameters": {"rope_type": "default", "rope_theta": cfg.rope_base},
        "rms_norm_eps": cfg.norm_eps,
        "attention_bias": cfg.bias,
        "attention_dropout": cfg.dropout,
    }
    if name == "llama":
        return values | {"hidden_act": "silu", "mlp_bias": cfg.bias}
    # Left out, both would have a default that is none of ours: a padding token, scaled angles.
    values |= {"hidden_act": families.ACTIVATIONS[cfg.activation], "pad_token_id": None}
    if name == "apertus":
        return values | {"rope_scaling": None}
    # The final norm's gains are in the head, so that it is no longer the embedding.
    return values | {
        "tie_word_embeddings": False,
        "final_logit_softcapping": cfg.softcap or None,
    }


def read(folder: Path) -> dict[str, Any]:
    """The values of a folder's config.json; FileNotFoundError or ValueError if it has none.

    A key that is null is left out: as in transformers, it then has its default. The exception is
    final_logit_softcapping, where null means no cap, here 0.
    """
    path = folder / FILE
    if not path.exists():
        raise FileNotFoundError(
            f"init_from={folder}: there is no {path}; give a folder that transformers saved"
        )
    values = files.read_json(path, links=True)
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no settings")
    if values.get("final_logit_softcapping", 0.0) is None:
        values["final_logit_softcapping"] = 0.0
    return {key: value for key, value in values.items() if value is not None}


# What is read of a config.json: the type and the limits of each key, and its default.
Count = Annotated[int, Meta(ge=1, le=1 << 20)]
Epsilon = Annotated[float, Meta(gt=0, le=1)]
Base = Annotated[float, Meta(ge=1, le=1e30)]


class Gpt2(msgspec.Struct):
    n_layer: Count
    n_head: Count
    n_embd: Count
    n_positions: Count
    n_inner: Count | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: Epsilon = 1e-5
    tie_word_embeddings: bool = True
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    add_cross_attention: bool = False


class Rope(msgspec.Struct):
    """How positions are rotated, under the name of transformers 5 or of an older one."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: Base | None = None


class Rotary(msgspec.Struct, kw_only=True):
    """What Llama and the families after it have in common."""

    num_hidden_layers: Count
    num_attention_heads: Count
    hidden_size: Count
    intermediate_size: Count
    max_position_embeddings: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    rope_parameters: Rope | None = None
    rope_scaling: Rope | None = None
    rope_theta: Base = 10_000.0
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    rms_norm_eps: Epsilon = 1e-6


class Llama(Rotary, kw_only=True):
    hidden_act: str = "silu"
    mlp_bias: bool = False


class Apertus(Rotary, kw_only=True):
    rope_theta: Base = 12_000_000.0
    rms_norm_eps: Epsilon = 1e-5
    hidden_act: str = "xielu"


class NanoChat(Rotary, kw_only=True):
    hidden_act: str = "relu2"
    final_logit_softcapping: float = 15.0


T = TypeVar("T", Gpt2, Llama, Apertus, NanoChat)


def _typed(values: Mapping[str, object], kind: type[T], path: Path) -> T:
    """The values as `kind`; ValueError names the file, the key, its value and what is allowed."""
    known = {}
    for field in msgspec.structs.fields(kind):
        if field.name not in values:
            if field.required:
                raise ValueError(f"{path} has no {field.name!r}")
            continue
        value = values[field.name]
        try:
            known[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            allowed = str(error).replace("`", "").replace("Expected", "expected")
            raise ValueError(f"{path}: {field.name} is {ascii(value)[:60]}, {allowed}") from None
    return kind(**known)


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of our transformer that computes what the folder's model does.

    Raises FileNotFoundError or ValueError if config.json is missing, or holds a model that our
    transformer cannot be.
    """
    path = folder / FILE
    values = read(folder)
    model_type = values.get("model_type")
    if model_type == "gpt2":
        theirs = _gpt2(_typed(values, Gpt2, path), path)
    elif model_type == "llama":
        theirs = _llama(_typed(values, Llama, path), path)
    elif model_type == "apertus":
        theirs = _apertus(_typed(values, Apertus, path), path)
    elif model_type == "nanochat":
        theirs = _nanochat(_typed(values, NanoChat, path), path)
    else:
        raise ValueError(
            f"init_from={folder}: its model_type is {ascii(model_type)[:60]}, and "
            f"{', '.join(families.FAMILIES)} can be read"
        )
    settings = {"name": "transformer", "qk_norm": False, **theirs}
    try:
        TransformerConfig(**settings)
    except ConfigError as error:
        keys = GPT2_KEYS if model_type == "gpt2" else LLAMA_KEYS
        text = re.sub(r"model\.(\w+)", lambda found: keys.get(found[1], found[1]), str(error))
        raise ValueError(f"{path}: {text}") from None
    return settings


def _activation(key: str, value: str, path: Path) -> str:
    """Our name of the activation that config.json gives under `key`."""
    activations = {theirs: ours for ours, theirs in families.ACTIVATIONS.items()}
    activations["gelu_pytorch_tanh"] = "gelu"
    if value not in activations:
        raise ValueError(f"{path}: {key}={value[:60]} is not one of ours, {', '.join(activations)}")
    return activations[value]


def _check_supported(values: Gpt2 | Rotary, path: Path, **supported: object) -> None:
    """ValueError where a key of config.json has another value than the one that can be read."""
    for key, value in supported.items():
        found = getattr(values, key)
        if found != value:
            raise ValueError(f"{path}: {key}={str(found)[:60]} is not supported, {value} is")


def _gpt2(values: Gpt2, path: Path) -> dict[str, Any]:
    _check_supported(
        values,
        path,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    )
    return {
        "n_layer": values.n_layer,
        "n_head": values.n_head,
        "n_embd": values.n_embd,
        "n_mlp": values.n_inner or 4 * values.n_embd,
        "context_len": values.n_positions,
        "activation": _activation("activation_function", values.activation_function, path),
        "norm_eps": values.layer_norm_epsilon,
        "tie": values.tie_word_embeddings,
        "positions": "learned",
        "norm": "layernorm",
        "bias": True,
    }


def _llama(values: Llama, path: Path) -> dict[str, Any]:
    _check_supported(values, path, hidden_act="silu")
    if values.attention_bias != values.mlp_bias:
        raise ValueError(f"{path}: attention_bias and mlp_bias differ, and ours are one setting")
    return {
        **_rotary(values, path),
        "bias": values.attention_bias,
        "activation": "swiglu",
    }


def _apertus(values: Apertus, path: Path) -> dict[str, Any]:
    _check_supported(values, path, attention_bias=False)
    if values.rope_parameters is None:
        raise ValueError(f"{path} has no 'rope_parameters': rotary positions are scaled")
    return {
        **_rotary(values, path),
        "activation": _activation("hidden_act", values.hidden_act, path),
        "qk_norm": True,
    }


def _nanochat(values: NanoChat, path: Path) -> dict[str, Any]:
    _check_supported(values, path, attention_bias=False, tie_word_embeddings=False)
    return {
        **_rotary(values, path),
        "activation": _activation("hidden_act", values.hidden_act, path),
        "softcap": values.final_logit_softcapping,
        "qk_norm": True,
        "embed_norm": True,
    }


def _rotary(values: Rotary, path: Path) -> dict[str, Any]:
    """The settings that all families with rotary positions give under the same names."""
    rope = values.rope_parameters or Rope()
    scaling = values.rope_scaling or rope
    rope_type = scaling.rope_type or scaling.type or "default"
    if rope_type != "default":
        raise ValueError(f"{path}: rotary positions scaled by {rope_type[:60]!r} are not supported")
    n_head = values.num_attention_heads
    n_embd = values.hidden_size
    if values.head_dim not in (None, n_embd // n_head):
        raise ValueError(
            f"{path}: head_dim={values.head_dim} is not hidden_size={n_embd} / "
            f"num_attention_heads={n_head}"
        )
    return {
        "n_layer": values.num_hidden_layers,
        "n_head": n_head,
        "n_kv_head": values.num_key_value_heads or n_head,
        "n_embd": n_embd,
        "n_mlp": values.intermediate_size,
        "context_len": values.max_position_embeddings,
        "rope_base": rope.rope_theta or values.rope_theta,
        "positions": "rope",
        "norm": "rmsnorm",
        "norm_eps": values.rms_norm_eps,
        "tie": values.tie_word_embeddings,
    }


def adopt(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run with `init_from`, with the folder's model and tokenizer in them.

    The settings of `Config.kept_with_init_from` are the run's own, but for a window that is longer
    than what the folder's model can read.
    """
    folder = Path(files.expanded(values["init_from"]))
    model = settings_of(folder)
    longest = model["context_len"]
    requested = values.get("model") or {}
    model |= {key: requested[key] for key in Config.kept_with_init_from if key in requested}
    if isinstance(model["context_len"], int):
        model["context_len"] = min(longest, model["context_len"])
    tokenizer = {"name": "hf", "path": str(folder.absolute())}
    return {**values, "model": model, "tokenizer": tokenizer}
