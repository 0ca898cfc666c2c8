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
from dataclasses import dataclass
from typing import Any

POINTS = (
    "ckpt.begin", "ckpt.mid_write", "ckpt.after_files", "ckpt.after_manifest", "ckpt.after_rename",
    "ckpt.mid_prune",
    "cache.mid", "cache.after_files", "cache.after_manifest", "cache.after_rename",
    "train.loss", "train.grad", "train.before_step", "train.after_step", "train.forward",
    "eval.mid", "sample.mid", "track.write", "wandb.init", "wandb.log", "wandb.finish",
)  # fmt: skip
FACTORS = {"nan": float("nan"), "inf": float("inf"), "x100": 100.0}


class FailpointError(RuntimeError):
    """What the action `raise` raises."""


@dataclass
class Failure:
    """What happens at a point, and at which visits or steps."""

    action: str
    when: range | None = None  # None: always
    n_visits: int = 0


_failures: dict[str, Failure] | None = None  # by point; None: the environment is not read yet


def switch_on(text: str) -> None:
    """Switch these failpoints on, in the form of LM_FAILPOINTS, and all others off.

    Raises ValueError for a point that does not exist.
    """
    global _failures
    failures = {}
    for word in filter(None, text.split(",")):
        point, _, action = word.partition("=")
        if point.rpartition(":")[2] not in POINTS:
            raise ValueError(f"LM_FAILPOINTS names {point}; there are {', '.join(POINTS)}")
        action, _, when = action.partition("@")
        first, _, last = when.partition("-")
        visits = range(int(first), int(last or first) + 1) if when else None
        failures[point] = Failure(action, visits)
    _failures = failures


def hit(point: str, value: Any = None, step: int | None = None) -> Any:
    """`value`, unless LM_FAILPOINTS names this point."""
    if _failures is None:
        switch_on(os.environ.get("LM_FAILPOINTS", ""))
    if not _failures:
        return value
    on_this_rank = f"{os.environ.get('RANK', 0)}:{point}"
    failure = _failures.get(point) or _failures.get(on_this_rank)
    if failure is None:
        return value
    failure.n_visits += 1
    number = failure.n_visits if step is None else step
    if failure.when is not None and number not in failure.when:
        return value
    return _fail(point, failure.action, value)


def _fail(point: str, action: str, value: Any) -> Any:
    if action in FACTORS:
        return value * FACTORS[action]
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif action.startswith("sleep:"):
        time.sleep(float(action.removeprefix("sleep:")))
    elif action == "memory":
        raise MemoryError
    elif action == "raise":
        raise FailpointError(f"failpoint {point}")
    else:
        code = getattr(errno, action.upper())
        raise OSError(code, os.strerror(code))
    return value
