"""The learning rate over a run, as a share of its base: functions of how much of it is done.

scale = update_scale(cfg.schedule, 0.49, 0.5)     # of the update that completes half of the run
rates = set_rates(optimizers, scale)              # each group's is base_lr * scale
"""

import math

import torch

from lm.config import CosineConfig, RangeConfig, ScheduleConfig, WSDConfig


def constant(cfg: ScheduleConfig, progress: float) -> float:
    """Up from 0 in the first `cfg.warmup` of the run, then 1."""
    if cfg.warmup == 0:
        return 1.0
    return min(1.0, progress / cfg.warmup)


def cosine(cfg: CosineConfig, progress: float) -> float:
    """Warmup, then half a cosine from 1 to `cfg.final` (Loshchilov and Hutter 2017)."""
    if progress < cfg.warmup:
        return constant(cfg, progress)
    done = 0.0  # share of the way down
    if cfg.warmup < 1:
        done = min(1.0, (progress - cfg.warmup) / (1 - cfg.warmup))
    return cfg.final + (1 - cfg.final) * 0.5 * (1 + math.cos(math.pi * done))


def wsd(cfg: WSDConfig, progress: float) -> float:
    """Warmup, stable at 1, then down a straight line to `cfg.final` in the last `cfg.decay`.

    Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395.
    """
    left = 1.0 - progress
    if left >= cfg.decay:
        return constant(cfg, progress)
    return cfg.final + (1 - cfg.final) * max(0.0, left) / cfg.decay


def rising(cfg: RangeConfig, progress: float) -> float:
    """Up from `cfg.first` to 1 by equal factors (Smith 2017, https://arxiv.org/abs/1506.01186)."""
    return cfg.first ** (1.0 - progress)


def update_scale(cfg: ScheduleConfig, before: float, after: float) -> float:
    """The share of the base rate for the update that takes the run from `before` to `after`.

    It is the schedule's at `after`: the first update of a warm-up has a rate above 0, and the last
    of a run the final one. Where a run's only update would so have none, it is that of the middle.
    """
    scale = cfg.build(after)
    if before == 0 and scale == 0:
        scale = cfg.build(after / 2)
    return scale


def set_rates(optimizers: list[torch.optim.Optimizer], scale: float) -> dict[str, float]:
    """Give every parameter group its rate for this step; return them by name, for the log."""
    rates = {}
    for i, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        name = "optim/lr"
        if i > 0:
            name = f"optim/lr_{type(optimizer).__name__.lower()}"
        rates[name] = optimizer.param_groups[0]["lr"]
    return rates
