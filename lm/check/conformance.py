"""Checks that a model keeps its promises, without which its numbers mean nothing.

    for name, verdict, detail in conformance.examine(bench):
        print(name, verdict, detail)

A check is one function of a Bench, named in CHECKS. It returns what it found, in one sentence; it
raises Broken if the promise is broken, and Skip where it does not apply. An error raised by the
model is a broken promise too.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from lm.check import forward_checks, training_checks
from lm.check.bench import Bench, Broken, Skip

CHECKS: dict[str, Callable[[Bench], str]] = {
    "shapes": forward_checks.shapes,
    "causality": forward_checks.causality,
    "memory": forward_checks.memory,
    "first loss": training_checks.first_loss,
    "one batch": training_checks.overfit,
    "cache": forward_checks.cache,
    "dtype, device": forward_checks.moves,
    "save, load": forward_checks.saved,
    "gradients": training_checks.gradients,
    "optimizers": training_checks.groups,
    "steps": training_checks.optimizer_steps,
    "schedule": training_checks.schedule,
    "speed": training_checks.speed,
}


class Verdict(NamedTuple):
    """The result of one check."""

    name: str
    verdict: Literal["ok", "failed", "skipped"]
    detail: str


def examine(bench: Bench) -> Iterator[Verdict]:
    """The verdict of every check, as each is done."""
    for name, check in CHECKS.items():
        try:
            yield Verdict(name, "ok", check(bench))
        except Skip as reason:
            yield Verdict(name, "skipped", str(reason))
        except Broken as broken:
            yield Verdict(name, "failed", str(broken))
        except Exception as error:  # whatever somebody's own model raises is a finding
            text = " ".join(str(error).split())
            yield Verdict(name, "failed", f"{type(error).__name__}: {text}")
