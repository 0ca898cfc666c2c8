"""Which class of Hugging Face's transformers computes a model of ours.

families.family(cfg.model)  # "gpt2"
families.CLASSES["gpt2"], families.SINCE["gpt2"]  # its name, and transformers' first release
"""

from lm.config import ModelConfig, TransformerConfig

# activation in our settings -> theirs; our gelu is the tanh form
ACTIVATIONS = {"gelu": "gelu_new", "relu2": "relu2"}
CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "apertus": "ApertusForCausalLM",
    "nanochat": "NanoChatForCausalLM",
}
# The release of transformers from which on each can be loaded; 4.50 is where our tests began
SINCE = {"gpt2": "4.50", "llama": "4.50", "apertus": "4.56", "nanochat": "5.0"}
# The settings that each family can express.
FAMILIES: dict[str, dict[str, tuple]] = {
    "gpt2": {
        "positions": ("learned",),
        "norm": ("layernorm",),
        "activation": tuple(ACTIVATIONS),
        "qk_norm": (False,),
        "embed_norm": (False,),
        "softcap": (0.0,),
    },
    "llama": {
        "positions": ("rope",),
        "norm": ("rmsnorm",),
        "activation": ("swiglu",),
        "qk_norm": (False,),
        "embed_norm": (False,),
        "softcap": (0.0,),
    },
    "apertus": {
        "positions": ("rope",),
        "norm": ("rmsnorm",),
        "activation": tuple(ACTIVATIONS),
        "qk_norm": (True,),
        "embed_norm": (False,),
        "bias": (False,),
        "softcap": (0.0,),
    },
    "nanochat": {
        "positions": ("rope",),
        "norm": ("rmsnorm",),
        "activation": tuple(ACTIVATIONS),
        "qk_norm": (True,),
        "embed_norm": (True,),
        "bias": (False,),
    },
}


def family(cfg: ModelConfig) -> str:
    """The model_type of the class of transformers that computes this model, a key of FAMILIES.

    Raises ValueError, with the settings that differ in the nearest, if none does.
    """
    cfg = _as_transformer(cfg)
    differences = {name: _differences(cfg, name) for name in FAMILIES}
    nearest = min(FAMILIES, key=lambda name: len(differences[name]))
    if differences[nearest]:
        mine = [_override(key, getattr(cfg, key)) for key in differences[nearest]]
        theirs = [_override(key, value) for key, value in differences[nearest].items()]
        raise ValueError(
            f"no class of transformers computes this model; {nearest}, the nearest, differs in "
            f"{', '.join(mine)}: train with {' '.join(theirs)} "
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


def _differences(cfg: TransformerConfig, name: str) -> dict[str, object]:
    """Which settings the family `name` cannot express, each with the first value that it can."""
    differences: dict[str, object] = {}
    for key, values in FAMILIES[name].items():
        if getattr(cfg, key) not in values:
            differences[key] = values[0]
    if name == "gpt2" and cfg.n_kv_head not in (0, cfg.n_head):
        differences["n_kv_head"] = 0  # as many as n_head
    return differences


def _override(key: str, value: object) -> str:
    """A setting of the model as it is written on the command line."""
    return f"model.{key}={str(value).lower() if isinstance(value, bool) else value}"
