"""What to change where training comes apart.

advice.steadier(config.flat(cfg))       # "lower optimizer.lr, or raise schedule.warmup"
"""

from collections.abc import Mapping

SMALL_EPS = 1e-12  # below which a parameter with next to no gradient takes full steps


def steadier(settings: Mapping[str, object]) -> str:
    """The settings of a run, by dotted key, that most likely made its numbers grow; what to do.

    That is the learning rate, unless a setting of the optimizer is far from usual.
    """
    eps = _number(settings, "optimizer.eps")
    beta1 = _number(settings, "optimizer.beta1")
    beta2 = _number(settings, "optimizer.beta2")
    if eps is not None and eps < SMALL_EPS:
        return f"raise optimizer.eps={eps:g}: 1e-8 is usual"
    if beta1 is not None and beta2 is not None and beta2 < beta1**2:
        return f"raise optimizer.beta2={beta2:g}, which is far below optimizer.beta1={beta1:g}"
    more = ", or set train.clip=1" if settings.get("train.clip") == 0 else ""
    return f"lower optimizer.lr, or raise schedule.warmup{more}"


def _number(settings: Mapping[str, object], key: str) -> float | None:
    value = settings.get(key)
    return float(value) if isinstance(value, (int, float)) else None
