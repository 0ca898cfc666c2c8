"""Settings tuned on a small model carried over to a larger one: a factor for each parameter.

    python -m lm.train model.n_embd=256 model.n_head=16 model.base_width=64 model.base_n_head=4

The base is the same model with `model.base_width` in place of n_embd (and every other width
smaller by the same ratio m) and `model.base_depth` in place of n_layer (ratio d). Learning rates,
weight decay and initial sizes (`model.init_std`, `model.embed_std`) are given for the base, where
all of them are tuned: experiments/011_initial_sizes shows what the usual 0.02 costs at width 64.
Here each kind of parameter gets its factor on them, so that what a step changes in every activation
depends neither on m nor on d. At m = d = 1 all factors are 1. A ratio whose base is 0 counts as 1.

| parameter               | initial size  | AdamW: rate | decay | eps     | Muon: rate | decay |
|-------------------------|---------------|-------------|-------|---------|------------|-------|
| embedding, tied or not  | 1             | 1           | none  | 1/m     | AdamW's    |       |
| hidden matrix           | 1/sqrt(m)     | 1/m         | m     | 1/(m d) | 1          | 1     |
| one that ends a branch  | 1/(d sqrt(m)) | 1/(m d)     | m d   | 1/m     | 1/d        | d     |
| head of its own         | 1/m           | 1/m         | m     | 1       | AdamW's    |       |
| last norm, head tied    | 1/m           | 1/m         | none  | 1       | AdamW's    |       |
| gain or bias of a layer | 1             | 1           | none  | 1/(m d) | AdamW's    |       |
| bias at a branch's end  | 1/d           | 1/d         | none  | 1/m     | AdamW's    |       |
| bias of the head        | 1             | 1           | none  | 1       | AdamW's    |       |

Where each rule is from:

- Initial sizes and AdamW's rates over width: Yang et al. 2022, https://arxiv.org/abs/2203.03466,
  table 3 (each entry of a matrix moves by the rate, so fan_in of them move their sum by m times).
- AdamW's decay and eps, and all of depth: Dey et al. 2025 (CompleteP, alpha = 1),
  https://arxiv.org/abs/2505.01618. Rate times decay, the share of a weight that a step takes, is
  that of the base; eps stays as small beside the gradients as it is there.
- Muon: Yang, Simon and Bernstein 2023, https://arxiv.org/abs/2310.17813. A matrix has to keep the
  spectral norm sqrt(rows / columns) over widths, and so has its update. Muon's update has it
  already: no factor for rate or decay over width. Its initial sizes, the depth, and all that AdamW
  moves beside it (embeddings, head, gains) still need theirs.
- Multipliers of outputs: a factor f on what a layer gives is, with optimizers that ignore the size
  of a gradient, the same as f on initial size and rate and 1/f on decay (Yang et al. 2022, lemma
  J.1). So the 1/d on a branch (CompleteP) stands in the matrix that ends it, and the 1/m on tied
  logits in the gain of the last norm: no model computes anything else than without a base, and
  what is exported needs no multiplier.
- Attention: scores are divided by D instead of sqrt(D), relative to the base: q k / sqrt(D) times
  sqrt(D_base / D) (Yang et al. 2022, definition 4.1). 1 where heads keep their width.
- QK-norm: queries and keys of size 1 at any width, whose product grows with D where they agree: the
  same rule, which is why it is a factor in `forward` and not in a matrix.
- GQA: the share n_kv_head / n_head is that of the base, so rows and columns of all matrices grow
  alike; a key that serves several heads is no larger for it (no rule of its own).
- RMSNorm and LayerNorm gains: vectors, whose entries act one by one (Yang et al. 2022, table 3).
- SwiGLU: three hidden matrices; the product of gate and up has the size of its factors.
- GRU and tanh MLP: hidden matrices with factor 1 on initial sizes, as PyTorch's own are 1/sqrt(m)
  already; their biases, which PyTorch makes small with the width, keep the base's size. Over the
  depth of a GRU no rule is known, as it has no residual stream.

Sizes and rates of what the base model has are those of its usual initialisation, so results with
`base_width=0` and `base_depth=0` are those of before, to the bit.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from lm.config import ModelConfig, TransformerConfig
from lm.system.errors import ConfigError

if TYPE_CHECKING:
    from lm.models.base import LanguageModel


class Ratios(NamedTuple):
    """How many times wider and deeper than its base a model is."""

    width: float = 1.0
    depth: float = 1.0


class Factors(NamedTuple):
    """What a parameter's initial size, rate, weight decay and eps are multiplied by."""

    init: float = 1.0
    lr: float = 1.0
    decay: float = 1.0
    eps: float = 1.0


def is_on(cfg: ModelConfig) -> bool:
    """Whether the model has a base from which its settings are carried over."""
    return bool(cfg.base_width or cfg.base_depth)


def ratios(cfg: ModelConfig) -> Ratios:
    width = depth = 1.0
    if cfg.base_width:
        width = getattr(cfg, cfg.width_keys[0]) / cfg.base_width
    if cfg.base_depth:
        depth = getattr(cfg, cfg.depth_key) / cfg.base_depth
    return Ratios(width, depth)


def score_factor(cfg: TransformerConfig) -> float:
    """What attention scores q k / sqrt(D) are multiplied by: sqrt(D_base / D)."""
    if not cfg.base_width:
        return 1.0
    base = cfg.base()
    base_head_dim = base.n_embd // base.n_head
    return math.sqrt(base_head_dim / (cfg.n_embd // cfg.n_head))


def scale_init(model: "LanguageModel") -> None:
    """Multiply each parameter of a new model by its factor on initial sizes."""
    if not is_on(model.cfg):
        return
    with torch.no_grad():
        for name, factors in adamw_factors(model).items():
            if factors.init != 1:
                model.get_parameter(name).mul_(factors.init)


def adamw_factors(model: "LanguageModel") -> dict[str, Factors]:
    """The factors of every parameter, by name, as AdamW moves it: the table above.

    Raises ConfigError where the model does not say what one of its matrices is.
    """
    m, d = ratios(model.cfg)
    roles = roles_of(model)
    # PyTorch's own layers start with sizes that fall with the root of their width.
    own = math.sqrt(m) if model.starts_by_fan_in else 1.0
    table = {
        "embedding": Factors(eps=1 / m),
        "hidden": Factors(own / math.sqrt(m), 1 / m, m, 1 / (m * d)),
        "branch end": Factors(own / (d * math.sqrt(m)), 1 / (m * d), m * d, 1 / m),
        "readout": Factors(1 / m, 1 / m, m),
        "vector": Factors(own, eps=1 / (m * d)),
        "branch end vector": Factors(own / d, 1 / d, eps=1 / m),
        "outer vector": Factors(),
    }
    return {name: table[role] for name, role in roles.items()}


def muon_factors(model: "LanguageModel") -> dict[str, Factors]:
    """The factors on rate and decay of the parameters that Muon moves, by name.

    The spectral norm of an update is the rate itself, whatever the width; `init` and `eps` say
    nothing.
    """
    d = ratios(model.cfg).depth
    table = {"hidden": Factors(), "branch end": Factors(lr=1 / d, decay=d)}
    return {name: table[role] for name, role in roles_of(model).items() if role in table}


def roles_of(model: "LanguageModel") -> dict[str, str]:
    """What each parameter is, by name: a row of the table above.

    Raises ConfigError where the model does not say it, or no rule is known.
    """
    _check_stated(model)
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found = {}
    for name, p in model.named_parameters():
        module = name.rpartition(".")[0]
        is_matrix = p.ndim >= 2
        is_inside = name.partition(".")[0] in model.hidden
        ends_branch = is_inside and module.endswith(model.branches or ("no such module",))
        if id(p) in embeddings:
            found[name] = "embedding"
        elif module == model.readout and (is_matrix or _is_norm(model, module)):
            found[name] = "readout"
        elif is_inside and is_matrix:
            found[name] = "branch end" if ends_branch else "hidden"
        elif is_inside:
            found[name] = "branch end vector" if ends_branch else "vector"
        elif not is_matrix:
            found[name] = "outer vector"
        else:
            raise ConfigError(
                f"{_setting(model)}: {type(model).__name__} does not say what {name} is: name its "
                "submodule in `hidden`, or as `readout` if it gives the logits"
            )
    return found


def describe(model: "LanguageModel") -> str:
    """One line of a run: what its settings are carried over from."""
    cfg = model.cfg
    m, d = ratios(cfg)
    base = cfg.base()
    parts = []
    if cfg.base_width:
        heads = ""
        if isinstance(base, TransformerConfig):
            heads = f" in {base.n_head} heads of {base.n_embd // base.n_head}"
        parts.append(f"{m:g} times as wide as its base of {cfg.base_width}{heads}")
    if cfg.base_depth:
        parts.append(f"{d:g} times as deep as its base of {cfg.base_depth} layers")
    return f"{'transfer':<10} {cfg.name:<12} {', '.join(parts)}; rates are those of the base"


def _check_stated(model: "LanguageModel") -> None:
    """ConfigError where the model lacks what the rules need to know."""
    cfg = model.cfg
    kind = type(model).__name__
    if not model.hidden or not model.readout:
        raise ConfigError(
            f"{_setting(model)}: {kind} does not state its roles: give the class `hidden`, the "
            "submodules between embedding and head, and `readout`, the one that gives the logits"
        )
    if cfg.base_depth and not model.branches:
        raise ConfigError(
            f"model.base_depth={cfg.base_depth}: no rule is known for the depth of {kind}, which "
            "names no `branches` of a residual stream; give model.base_depth=0"
        )


def _setting(model: "LanguageModel") -> str:
    cfg = model.cfg
    if cfg.base_width:
        return f"model.base_width={cfg.base_width}"
    return f"model.base_depth={cfg.base_depth}"


def _is_norm(model: "LanguageModel", module: str) -> bool:
    return isinstance(model.get_submodule(module), (nn.LayerNorm, nn.RMSNorm))
