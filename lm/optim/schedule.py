"""The learning rate over a run, as a share of its base: pure functions of how much of it is done.

scale = cfg.schedule.build(0.5)          # halfway; the rate is base_lr * scale
"""

import math


def constant(cfg, progress: float) -> float:
    """Up from 0 in the first `cfg.warmup` of the run, then 1."""
    return min(1.0, progress / cfg.warmup) if cfg.warmup else 1.0


def cosine(cfg, progress: float) -> float:
    """Warmup, then half a cosine from 1 to `cfg.final` (Loshchilov and Hutter 2017)."""
    if progress < cfg.warmup:
        return constant(cfg, progress)
    done = min(1.0, (progress - cfg.warmup) / (1 - cfg.warmup)) if cfg.warmup < 1 else 0.0
    return cfg.final + (1 - cfg.final) * 0.5 * (1 + math.cos(math.pi * done))


def wsd(cfg, progress: float) -> float:
    """Warmup, stable at 1, then down a straight line to `cfg.final` in the last `cfg.decay`.

    Hu et al. 2024 (MiniCPM), https://arxiv.org/abs/2404.06395.
    """
    left = 1.0 - progress
    if left >= cfg.decay:
        return constant(cfg, progress)
    return cfg.final + (1 - cfg.final) * max(0.0, left) / cfg.decay


def rising(cfg, progress: float) -> float:
    """Up from `cfg.first` to 1 by equal factors (Smith 2017, https://arxiv.org/abs/1506.01186)."""
    return cfg.first ** (1.0 - progress)
