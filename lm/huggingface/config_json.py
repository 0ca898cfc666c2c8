"""Our settings of a transformer as a config.json of GPT-2 or Llama, and back.

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

from lm.config import ModelConfig, TransformerConfig
from lm.system import files
from lm.system.errors import ConfigError

# activation in our settings -> GPT-2's activation_function; its gelu is the tanh form
GPT2_ACTIVATIONS = {"gelu": "gelu_new", "relu2": "relu2"}
FILE = "config.json"
# Our name of a setting -> theirs, where they differ
KEYS = {
    "gpt2": {"n_mlp": "n_inner", "context_len": "n_positions", "norm_eps": "layer_norm_epsilon"},
    "llama": {
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_kv_head": "num_key_value_heads",
        "n_embd": "hidden_size",
        "n_mlp": "intermediate_size",
        "context_len": "max_position_embeddings",
        "rope_base": "rope_theta",
        "norm_eps": "rms_norm_eps",
    },
}
# The settings that each family can express.
FAMILIES: dict[str, dict[str, tuple]] = {
    "gpt2": {
        "positions": ("learned",),
        "norm": ("layernorm",),
        "activation": tuple(GPT2_ACTIVATIONS),
        "qk_norm": (False,),
        "softcap": (0.0,),
    },
    "llama": {
        "positions": ("rope",),
        "norm": ("rmsnorm",),
        "activation": ("swiglu",),
        "qk_norm": (False,),
        "softcap": (0.0,),
    },
}


def family(cfg: ModelConfig) -> str:
    """gpt2 or llama: the class of transformers that computes this model.

    Raises ValueError, with the settings that differ, if neither does.
    """
    cfg = _as_transformer(cfg)
    differences = {name: _differences(cfg, name) for name in FAMILIES}
    nearest = min(FAMILIES, key=lambda name: len(differences[name]))
    if differences[nearest]:
        raise ValueError(
            f"no class of transformers computes this model; {nearest}, the nearest, differs in "
            f"{', '.join(differences[nearest])}; train with model=llama or model=gpt2 "
            "(format=tokenizers exports the tokenizer of any run)"
        )
    return nearest


def _as_transformer(cfg: ModelConfig) -> TransformerConfig:
    if not isinstance(cfg, TransformerConfig) or cfg.name != "transformer":
        raise ValueError(
            f"model {cfg.name} has no class in transformers: format=hf takes model=transformer; "
            "format=tokenizers and format=tiktoken write its tokenizer"
        )
    return cfg


def _differences(cfg: TransformerConfig, name: str) -> list[str]:
    """Which settings the family `name` cannot express, and what it has instead."""
    differences = []
    for key, values in FAMILIES[name].items():
        mine = getattr(cfg, key)
        if mine not in values:
            differences.append(f"model.{key}={mine} (it has {' or '.join(map(str, values))})")
    if name == "gpt2" and cfg.n_kv_head not in (0, cfg.n_head):
        differences.append(f"model.n_kv_head={cfg.n_kv_head} (it has one for each head)")
    return differences


def to_hf(cfg: ModelConfig, vocab_size: int, eot_id: int | None) -> dict[str, object]:
    """The values of the model's config.json; ValueError if neither family can express it."""
    cfg = _as_transformer(cfg)
    name = family(cfg)
    shared = {
        "model_type": name,
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
            "architectures": ["GPT2LMHeadModel"],
            "n_embd": cfg.n_embd,
            "n_layer": cfg.n_layer,
            "n_head": cfg.n_head,
            "n_inner": n_mlp,
            "n_positions": cfg.context_len,
            "activation_function": GPT2_ACTIVATIONS[cfg.activation],
            "layer_norm_epsilon": cfg.norm_eps,
            "attn_pdrop": cfg.dropout,
            "embd_pdrop": cfg.dropout,
            "resid_pdrop": cfg.dropout,
        }
    return shared | {
        "architectures": ["LlamaForCausalLM"],
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
        "hidden_act": "silu",
        "attention_bias": cfg.bias,
        "mlp_bias": cfg.bias,
        "attention_dropout": cfg.dropout,
    }


def read(folder: Path) -> dict[str, Any]:
    """The values of a folder's config.json; FileNotFoundError or ValueError if it has none.

    A key that is null is left out: as in transformers, it then has its default.
    """
    path = folder / FILE
    if not path.exists():
        raise FileNotFoundError(
            f"init_from={folder}: there is no {path}; give a folder that transformers saved"
        )
    values = files.read_json(path, links=True)
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no settings")
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


class Llama(msgspec.Struct):
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
    rms_norm_eps: Epsilon = 1e-6
    hidden_act: str = "silu"
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False


T = TypeVar("T", Gpt2, Llama)


def _typed(values: Mapping[str, object], kind: type[T], folder: Path) -> T:
    """The values as `kind`; ValueError names the file, the key, its value and what is allowed."""
    known = {}
    for field in msgspec.structs.fields(kind):
        if field.name not in values:
            if field.required:
                raise ValueError(f"{folder / FILE} has no {field.name!r}")
            continue
        value = values[field.name]
        try:
            known[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            allowed = str(error).replace("`", "").replace("Expected", "expected")
            raise ValueError(
                f"{folder / FILE}: {field.name} is {ascii(value)[:60]}, {allowed}"
            ) from None
    return kind(**known)


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of our transformer that computes what the folder's model does.

    Raises FileNotFoundError or ValueError if config.json is missing, or holds a model that our
    transformer cannot be.
    """
    values = read(folder)
    model_type = values.get("model_type")
    if model_type == "gpt2":
        theirs = _gpt2(_typed(values, Gpt2, folder), folder)
    elif model_type == "llama":
        theirs = _llama(_typed(values, Llama, folder), folder)
    else:
        raise ValueError(
            f"init_from={folder}: its model_type is {ascii(model_type)[:60]}, and gpt2 and llama "
            "can be read"
        )
    settings = {"name": "transformer", "qk_norm": False, **theirs}
    try:
        TransformerConfig(**settings)
    except ConfigError as error:
        keys = KEYS[model_type]
        text = re.sub(r"model\.(\w+)", lambda found: keys.get(found[1], found[1]), str(error))
        raise ValueError(f"{folder / FILE}: {text}") from None
    return settings


def _gpt2(values: Gpt2, folder: Path) -> dict[str, Any]:
    activations = {theirs: ours for ours, theirs in GPT2_ACTIVATIONS.items()}
    activations["gelu_pytorch_tanh"] = "gelu"
    activation = values.activation_function
    if activation not in activations:
        raise ValueError(
            f"{folder / FILE}: activation_function={activation[:60]} is not one of ours, "
            f"{', '.join(activations)}"
        )
    supported = {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    for key, value in supported.items():
        if getattr(values, key) != value:
            raise ValueError(
                f"{folder / FILE}: {key}={getattr(values, key)} is not supported, {value} is"
            )
    return {
        "n_layer": values.n_layer,
        "n_head": values.n_head,
        "n_embd": values.n_embd,
        "n_mlp": values.n_inner or 4 * values.n_embd,
        "context_len": values.n_positions,
        "activation": activations[activation],
        "norm_eps": values.layer_norm_epsilon,
        "tie": values.tie_word_embeddings,
        "positions": "learned",
        "norm": "layernorm",
        "bias": True,
    }


def _llama(values: Llama, folder: Path) -> dict[str, Any]:
    rope = values.rope_parameters or Rope()
    scaling = values.rope_scaling or rope
    rope_type = scaling.rope_type or scaling.type or "default"
    if rope_type != "default":
        raise ValueError(
            f"{folder / FILE}: rotary positions scaled by {rope_type[:60]!r} are not supported"
        )
    if values.hidden_act != "silu":
        raise ValueError(
            f"{folder / FILE}: hidden_act={values.hidden_act[:60]} is not supported, silu is"
        )
    if values.attention_bias != values.mlp_bias:
        raise ValueError(
            f"{folder / FILE}: attention_bias and mlp_bias differ, and ours are one setting"
        )
    n_head = values.num_attention_heads
    n_embd = values.hidden_size
    if values.head_dim not in (None, n_embd // n_head):
        raise ValueError(
            f"{folder / FILE}: head_dim={values.head_dim} is not hidden_size={n_embd} / "
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
        "norm_eps": values.rms_norm_eps,
        "tie": values.tie_word_embeddings,
        "bias": values.attention_bias,
        "positions": "rope",
        "norm": "rmsnorm",
        "activation": "swiglu",
    }


def adopt(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run with `init_from`, with the folder's model and tokenizer in them.

    The window may be shorter than what the folder's model can read, and dropout is the run's own.
    """
    folder = Path(files.expanded(values["init_from"]))
    model = settings_of(folder)
    requested = values.get("model") or {}
    context_len = requested.get("context_len")
    if isinstance(context_len, int):
        model["context_len"] = min(model["context_len"], context_len)
    model["dropout"] = requested.get("dropout", 0.0)
    tokenizer = {"name": "hf", "path": str(folder.absolute())}
    return {**values, "model": model, "tokenizer": tokenizer}
