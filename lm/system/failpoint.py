"""Places in the code where a test can break a run, switched on by an environment variable.

    LM_FAILPOINTS="ckpt.after_manifest=kill@3,train.loss=nan@17-19" python -m lm.train ...
    loss = failpoint.hit("train.loss", loss, step)     # off: the same loss, at no cost

Actions: kill and term (SIGKILL and SIGTERM to this process), raise, memory (a MemoryError),
sleep:SECONDS, an error of the system by its name (enospc, erofs, ...), and nan, inf, x100, which
spoil the value that is passed.
`@3` or `@3-5` names the visits, counted from 1, or else the steps that count; none: all of them.
`1:train.loss=nan` happens on rank 1 of several processes alone.
"""

import errno
import os
import signal
import time
from typing import Any

POINTS = (
    *("ckpt.begin", "ckpt.mid_write", "ckpt.after_files", "ckpt.after_manifest"),
    *("ckpt.after_rename", "ckpt.mid_prune"),
    *("cache.mid", "cache.after_files", "cache.after_manifest", "cache.after_rename"),
    *("train.loss", "train.grad", "train.before_step", "train.after_step", "train.forward"),
    *("eval.mid", "sample.mid", "track.write", "wandb.init", "wandb.log", "wandb.finish"),
)
SPOIL = {"nan": float("nan"), "inf": float("inf"), "x100": 100.0}


class FailpointError(RuntimeError):
    """What the action `raise` raises."""


def _parse(text: str) -> dict[str, tuple[str, range | None]]:
    found = {}
    for word in filter(None, text.split(",")):
        point, _, action = word.partition("=")
        if point.rpartition(":")[2] not in POINTS:
            raise ValueError(f"LM_FAILPOINTS names {point}; there are {', '.join(POINTS)}")
        action, _, when = action.partition("@")
        first, _, last = when.partition("-")
        found[point] = action, range(int(first), int(last or first) + 1) if when else None
    return found


_active = _parse(os.environ.get("LM_FAILPOINTS", ""))
_visits: dict[str, int] = {}


def hit(point: str, value: Any = None, step: int | None = None) -> Any:
    """`value`, unless LM_FAILPOINTS names this point."""
    if not _active:
        return value
    key = point if point in _active else f"{os.environ.get('RANK', 0)}:{point}"
    if key not in _active:
        return value
    action, when = _active[key]
    _visits[point] = _visits.get(point, 0) + 1
    if when is not None and (step if step is not None else _visits[point]) not in when:
        return value
    if action in SPOIL:
        return value * SPOIL[action]
    if action in ("kill", "term"):
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGTERM)
    elif action.startswith("sleep:"):
        time.sleep(float(action.partition(":")[2]))
    elif action == "memory":
        raise MemoryError
    elif action == "raise":
        raise FailpointError(f"failpoint {point}")
    else:
        number = getattr(errno, action.upper())
        raise OSError(number, os.strerror(number))
    return value
