"""Hugging Face's names for our settings, and ours for theirs: GPT-2 and Llama configurations.

    hf_config.config_of(cfg.model, vocab_size, eot_id)  # for config.json; ValueError: it cannot
    hf_config.settings_of("gpt2-folder")                # the transformer that such a folder holds

Reads and writes plain values alone, so that the launcher can use it before torch is loaded; the
weights are in hf_weights.py.
"""

import json
from pathlib import Path
from typing import Any

# activation in our settings -> GPT-2's activation_function; all smooth steps are the tanh form
GPT2_ACTIVATIONS = {"gelu": "gelu_new", "relu2": "relu2"}
MAX_BYTES = 1 << 20  # of a config.json


def family(cfg: Any) -> str:
    """gpt2 or llama: the class that can say what this model does. ValueError says why none can."""
    if cfg.name != "transformer":
        raise ValueError(
            f"model {cfg.name} has no class in transformers: format=hf takes model=transformer; "
            "format=tokenizers and format=tiktoken write its tokenizer"
        )
    gpt2 = {"positions": ("learned",), "norm": ("layernorm",), "activation": (*GPT2_ACTIVATIONS,)}
    llama = {"positions": ("rope",), "norm": ("rmsnorm",), "activation": ("swiglu",)}
    both = {"qk_norm": (False,), "softcap": (0.0,)}
    found = {}
    for name, wanted in (("gpt2", gpt2 | both), ("llama", llama | both)):
        found[name] = [
            f"model.{key}={getattr(cfg, key)} (it has {' or '.join(map(str, values))})"
            for key, values in wanted.items()
            if getattr(cfg, key) not in values
        ]
    if cfg.n_kv_head not in (0, cfg.n_head):
        found["gpt2"].append(f"model.n_kv_head={cfg.n_kv_head} (it has one for each head)")
    best = min(found, key=lambda name: len(found[name]))
    if found[best]:
        raise ValueError(
            f"no class of transformers computes this model; {best}, the nearest, differs in "
            f"{', '.join(found[best])}; train with model=llama or model=gpt2 (format=tokenizers "
            "exports the tokenizer of any run)"
        )
    return best


def config_of(cfg: Any, vocab_size: int, eot_id: int | None) -> dict[str, Any]:
    """config.json of the model. ValueError where neither class can express it."""
    kind = family(cfg)
    shared = {
        "model_type": kind,
        "vocab_size": vocab_size,
        "bos_token_id": eot_id,
        "eos_token_id": eot_id,
        "tie_word_embeddings": cfg.tie,
        "torch_dtype": "float32",
        "use_cache": True,
    }
    gated = cfg.activation == "swiglu"
    n_mlp = cfg.n_mlp or (-(-cfg.n_embd // 3) * 8 if gated else 4 * cfg.n_embd)
    if kind == "gpt2":
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
    """A folder's config.json. FileNotFoundError or ValueError says what is wrong with it."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"init_from={folder}: there is no {path}; give a folder that transformers saved"
        )
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than a config.json can be")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no settings")
    return values


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of our transformer that computes what the folder's model does."""
    values = read(folder)
    kind = values.get("model_type")
    readers = {"gpt2": _gpt2, "llama": _llama}
    if kind not in readers:
        raise ValueError(
            f"init_from={folder}: its model_type is {kind!r}, and gpt2 and llama can be read"
        )
    try:
        return {"name": "transformer", "qk_norm": False, **readers[kind](values, folder)}
    except KeyError as error:
        raise ValueError(f"{folder}/config.json has no {error}") from None


def _gpt2(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    activations = {v: k for k, v in GPT2_ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu"}
    activation = values.get("activation_function", "gelu_new")
    if activation not in activations:
        raise ValueError(f"{folder}: activation_function={activation} is not one of ours")
    for key, usual in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        if values.get(key, usual) != usual:
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
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise ValueError(f"{folder}: rotary positions scaled by {kind!r} are not supported")
    if values.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{folder}: hidden_act={values['hidden_act']} is not supported")
    if values.get("attention_bias", False) != values.get("mlp_bias", False):
        raise ValueError(f"{folder}: attention_bias and mlp_bias differ, and ours are one setting")
    n_head, n_embd = values["num_attention_heads"], values["hidden_size"]
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
    """The settings of a run with `init_from`: model and tokenizer are the folder's.

    The window may be shorter than the folder's model could read, and dropout is the run's own.
    """
    folder = Path(values["init_from"])
    model = settings_of(folder)
    mine = values.get("model") or {}
    if isinstance(mine.get("context_len"), int):
        model["context_len"] = min(model["context_len"], mine["context_len"])
    model["dropout"] = mine.get("dropout", 0.0)
    return {**values, "model": model, "tokenizer": {"name": "hf", "path": str(folder.absolute())}}
