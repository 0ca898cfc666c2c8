"""Every kind of model at a small size: each in lm/config.py and each preset in conf/model.

A new model is tested by being listed there.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
import yaml

from lm import config
from lm.models.base import LanguageModel

V = 29  # vocab_size
CONTEXT = 16
SIZES = {"context_len": CONTEXT, "n_layer": 2, "n_head": 4, "n_embd": 32, "n_hidden": 48}
PRESETS = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))


def settings() -> dict[str, config.ModelConfig]:
    """The settings of each kind, by name."""
    kinds = config.options("model")
    found = {name: cls() for name, cls in kinds.items()}
    for path in PRESETS:
        values = yaml.safe_load(path.read_text())
        defaults = values.pop("defaults")
        schema = next(d["/schema/model@_here_"] for d in defaults if isinstance(d, dict))
        found[path.stem] = kinds[schema](**values)
    found["llama-gqa"] = dataclasses.replace(found["llama"], n_kv_head=2)
    found["capped"] = dataclasses.replace(found["transformer"], softcap=15.0, norm="layernorm")
    found["widened"] = dataclasses.replace(found["transformer"], base_width=16, base_depth=1)
    small = {}
    for name, cfg in found.items():
        known = {f.name for f in dataclasses.fields(cfg)}
        small[name] = dataclasses.replace(cfg, **{k: v for k, v in SIZES.items() if k in known})
    return small


SETTINGS = settings()


def text(n: int = 3000) -> np.ndarray:
    """Tokens with a rule to learn: each is often the one before plus one."""
    rng = np.random.default_rng(0)
    jumps = np.where(rng.random(n) < 0.7, 1, rng.integers(0, V, n))
    return (np.cumsum(jumps) % V).astype(np.uint16)


def build(name: str, vocab_size: int = V) -> LanguageModel:
    torch.manual_seed(0)
    model = SETTINGS[name].build(vocab_size)
    model.fit(text())
    for p in model.parameters():
        # A matrix that starts at zero would hide what lies before it.
        p.data += 0.05 * torch.randn_like(p)
    return model.eval()


def batch(B: int = 3, T: int = CONTEXT) -> torch.Tensor:
    return torch.from_numpy(text().astype(np.int64))[: B * T].view(B, T)
