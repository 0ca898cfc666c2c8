"""Batch size, weight decay and budget that follow from the size of a model and of its training.

    cfg = horizon.resolved(cfg)             # numbers in place of `auto` and `20x`
    for line in horizon.describe(before, cfg): log.info(line)

`train.tokens=20x` are 20 tokens for each parameter between embedding and head (N; Hoffmann et al.
2022, https://arxiv.org/abs/2203.15556, found 20 for the least loss of a given compute). The others
are power laws of Bergsma et al. 2025 (Power Lines, https://arxiv.org/abs/2505.13738), D being the
tokens of the run and B those of a batch:

    train.batch_size=auto          B = 2048 * 0.0306 * D^0.383
    optimizer.weight_decay=auto    B / (rate * decay * D) = 1.084 * (D / N)^-0.527

The second is the time, as a share of the run, over which a weight forgets its updates. They were
fitted to runs of 1e9 to 1e11 tokens, with AdamW and the parametrisation of
lm/models/parametrization.py; of shorter runs, and of Muon, they are an extrapolation, and the run
says so. `rate` is optimizer.lr, of the base where there is one: rate times decay stays as it is.
"""

import math
from dataclasses import replace

from torch import nn

from lm.config import Config
from lm.models.base import LanguageModel
from lm.system import memory
from lm.system.errors import ConfigError

FITTED_FROM = 1e9  # training tokens of the shortest run that the laws were fitted to
PAPER_WINDOW = 2048  # tokens in one of its sequences


def best_batch_tokens(n_tokens: float) -> float:
    """Tokens in the batch of the least loss after a run of n_tokens."""
    return PAPER_WINDOW * 0.0306 * n_tokens**0.383


def best_decay(batch_tokens: float, n_tokens: float, n_params: float, rate: float) -> float:
    """Weight decay at the best timescale of a run of n_tokens, for n_params and a peak rate."""
    timescale = 1.084 * (n_tokens / n_params) ** -0.527  # as a share of the run
    return batch_tokens / (timescale * rate * n_tokens)


def resolved(cfg: Config) -> Config:
    """The settings with a number for each that follows from others; the same where none does.

    Raises ConfigError for a model that is counted, or one whose size cannot be known beforehand.
    """
    if not cfg.unresolved():
        return cfg
    n_params = inner_params(cfg)
    window = cfg.model.context_len
    train = cfg.train
    tokens = train.tokens
    if isinstance(tokens, str):
        tokens = math.ceil(float(tokens.removesuffix("x")) * n_params)
    batch_size = train.batch_size
    if batch_size == "auto":
        batch_size = _whole_batch(cfg, best_batch_tokens(tokens) / window)
    optimizer = cfg.optimizer
    n_tokens = tokens or train.steps * batch_size * window
    if getattr(optimizer, "weight_decay", 0.0) == "auto":
        rate = getattr(optimizer, "lr", 0.0) * cfg.model.lr_scale
        if not rate:
            raise ConfigError(
                "optimizer.weight_decay=auto has no meaning at optimizer.lr=0: give 0"
            )
        decay = best_decay(batch_size * window, n_tokens, n_params, rate)
        optimizer = replace(optimizer, weight_decay=float(f"{decay:.4g}"))
    train = replace(train, tokens=tokens, batch_size=batch_size)
    return replace(cfg, train=train, optimizer=optimizer)


def describe(asked: Config, cfg: Config) -> list[str]:
    """A line for each number that took the place of `auto` or `20x`, with what it follows from."""
    window = cfg.model.context_len
    batch_tokens = cfg.train.batch_size * window
    n_tokens = cfg.train.tokens or cfg.train.steps * batch_tokens
    told = f"for {n_tokens:,} tokens"
    lines = []
    for key in asked.unresolved():
        if key == "train.tokens":
            n = f"{inner_params(cfg):,} parameters between embedding and head"
            lines.append(f"{key}={n_tokens}: {asked.train.tokens} the {n}")
        elif key == "train.batch_size":
            lines.append(f"{key}={cfg.train.batch_size}: {batch_tokens:,} tokens a step, {told}")
        else:
            decay = getattr(cfg.optimizer, "weight_decay", 0.0)
            lines.append(f"{key}={decay:g}: {told} in batches of {batch_tokens:,}")
    is_law = any(key != "train.tokens" for key in asked.unresolved())
    if is_law and (n_tokens < FITTED_FROM or cfg.optimizer.name != "adamw"):
        lines.append(f"these laws are of AdamW and {FITTED_FROM:g} tokens or more: a guess here")
    return [f"{'auto':<10} {line}" for line in lines]


def inner_params(cfg: Config) -> int:
    """Parameters between the embedding and a head, which no vocabulary changes."""
    model: LanguageModel | None = memory.skeleton(lambda: cfg.model.build(1))
    if model is None or not model.trainable:
        raise ConfigError(
            f"{', '.join(cfg.unresolved()) or 'auto'}: model={cfg.model.name} has no size that is "
            "known before the run; give numbers"
        )
    embeddings = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
    head = getattr(model, "head", None)
    outer = embeddings + (head.weight.numel() if isinstance(head, nn.Linear) else 0)
    n_params = model.n_params() - outer
    if n_params <= 0:
        raise ConfigError(
            f"{', '.join(cfg.unresolved())}: model={cfg.model.name} has no parameters between "
            "embedding and head to reckon with; give numbers"
        )
    return n_params


def _whole_batch(cfg: Config, windows: float) -> int:
    """The nearest number of windows that the processes, parts and passes of a run can share."""
    micro = cfg.train.micro_batch
    unit = max(cfg.train.n_proc, cfg.train.parts)
    unit *= micro if isinstance(micro, int) and micro else 1
    return max(1, round(windows / unit)) * unit
