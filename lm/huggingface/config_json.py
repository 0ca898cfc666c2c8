"""Our settings of a transformer as a config.json of GPT-2 or Llama, and back.

    config_json.to_hf(cfg.model, vocab_size, eot_id)  # {"model_type": "gpt2", "n_layer": 4, ...}
    config_json.settings_of(Path("gpt2-folder"))  # {"name": "transformer", "n_layer": 12, ...}

Does not need torch, so that the launcher can read settings before torch is loaded.
"""

import math
from pathlib import Path
from typing import Any

from lm.config import ModelConfig, TransformerConfig
from lm.system import files

# activation in our settings -> GPT-2's activation_function; its gelu is the tanh form
GPT2_ACTIVATIONS = {"gelu": "gelu_new", "relu2": "relu2"}
FILE = "config.json"
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
    """The values of a folder's config.json; FileNotFoundError or ValueError if it has none."""
    path = folder / FILE
    if not path.exists():
        raise FileNotFoundError(
            f"init_from={folder}: there is no {path}; give a folder that transformers saved"
        )
    values = files.read_json(path, links=True)
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no settings")
    return values


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of our transformer that computes what the folder's model does.

    Raises FileNotFoundError or ValueError if config.json is missing, or holds a model that our
    transformer cannot be.
    """
    values = read(folder)
    model_type = values.get("model_type")
    if model_type not in ("gpt2", "llama"):
        raise ValueError(
            f"init_from={folder}: its model_type is {model_type!r}, and gpt2 and llama can be read"
        )
    try:
        theirs = _gpt2(values, folder) if model_type == "gpt2" else _llama(values, folder)
        return {"name": "transformer", "qk_norm": False, **theirs}
    except KeyError as error:
        raise ValueError(f"{folder}/config.json has no {error}") from None


def _gpt2(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    activations = {theirs: ours for ours, theirs in GPT2_ACTIVATIONS.items()}
    activations["gelu_pytorch_tanh"] = "gelu"
    activation = values.get("activation_function", "gelu_new")
    if activation not in activations:
        raise ValueError(f"{folder}: activation_function={activation} is not one of ours")
    supported = {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    for key, value in supported.items():
        if values.get(key, value) != value:
            raise ValueError(f"{folder}: {key}={values[key]} is not supported")
    return {
        "n_layer": values["n_layer"],
        "n_head": values["n_head"],
        "n_embd": values["n_embd"],
        "n_mlp": values.get("n_inner") or 4 * values["n_embd"],
        "context_len": values["n_positions"],
        "activation": activations[activation],
        "norm_eps": values.get("layer_norm_epsilon", 1e-5),
        "tie": values.get("tie_word_embeddings", True),
        "positions": "learned",
        "norm": "layernorm",
        "bias": True,
    }


def _llama(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    rope = values.get("rope_parameters") or {}
    scaling = values.get("rope_scaling") or rope
    rope_type = scaling.get("rope_type", scaling.get("type", "default"))
    if rope_type != "default":
        raise ValueError(f"{folder}: rotary positions scaled by {rope_type!r} are not supported")
    if values.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{folder}: hidden_act={values['hidden_act']} is not supported")
    if values.get("attention_bias", False) != values.get("mlp_bias", False):
        raise ValueError(f"{folder}: attention_bias and mlp_bias differ, and ours are one setting")
    n_head = values["num_attention_heads"]
    n_embd = values["hidden_size"]
    if values.get("head_dim") not in (None, n_embd // n_head):
        raise ValueError(f"{folder}: head_dim={values['head_dim']} is not {n_embd} / {n_head}")
    return {
        "n_layer": values["num_hidden_layers"],
        "n_head": n_head,
        "n_kv_head": values.get("num_key_value_heads") or n_head,
        "n_embd": n_embd,
        "n_mlp": values["intermediate_size"],
        "context_len": values["max_position_embeddings"],
        "rope_base": float(rope.get("rope_theta", values.get("rope_theta", 10_000.0))),
        "norm_eps": values.get("rms_norm_eps", 1e-6),
        "tie": values.get("tie_word_embeddings", False),
        "bias": values.get("attention_bias", False),
        "positions": "rope",
        "norm": "rmsnorm",
        "activation": "swiglu",
    }


def adopt(values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run with `init_from`, with the folder's model and tokenizer in them.

    The window may be shorter than what the folder's model can read, and dropout is the run's own.
    """
    folder = Path(values["init_from"])
    model = settings_of(folder)
    requested = values.get("model") or {}
    context_len = requested.get("context_len")
    if isinstance(context_len, int):
        model["context_len"] = min(model["context_len"], context_len)
    model["dropout"] = requested.get("dropout", 0.0)
    tokenizer = {"name": "hf", "path": str(folder.absolute())}
    return {**values, "model": model, "tokenizer": tokenizer}
