"""What a sweep says while it runs: where the logs are, and a line for each arm as it ends.

    arm 5 of 8  gru lr=0.003 seed=1  bpb 2.9012  best so far 2.8660 (gru lr=0.003)  about 4 min left

progress.announce(plan)                                # by the command, before the first arm
with progress.arm_in_work(number, words, out): ...     # in whatever process the arm has
progress.show_end(root, number, words, result)

What the other arms have reached is read from their directories, so it does not matter which
launcher started them, nor on which machine they are.
"""

import contextlib
import functools
import logging
import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from lm.sweep import arms, labels, ranking
from lm.sweep.arms import RESULT, ArmResult
from lm.sweep.study import STUDY
from lm.system import terminal
from lm.system.errors import DamagedError
from lm.system.store import HOLDER

log = logging.getLogger(__name__)
CLOCK = 0.02  # seconds by which the times of files may lag behind the clock
PLAN = "LM_SWEEP_PLAN"  # in the environment, as some arms have processes of their own
SUMMARY = "summary.json"  # a run that has it is complete
SHORTEST = 8  # columns to which a label may be cut


class Plan(msgspec.Struct):
    """What the command knows of its arms before the first one starts."""

    n_arms: int | None = None  # None: only the sweeper knows
    varied: list[str] | None = None  # the keys in which their words differ; None: not known
    started: float = 0.0  # seconds since 1970
    process: int = 0  # that of the command, which has the terminal


def announce(plan: Plan) -> None:
    """Tell every process of this command what its arms are, and that they start now."""
    plan.started = time.time() - CLOCK  # or what is written at once would be of before
    plan.process = os.getpid()
    os.environ[PLAN] = msgspec.json.encode(plan).decode()


def show_start(root: Path) -> None:
    """Log how many arms there are, and where."""
    n_arms = _plan().n_arms
    count = "arms" if n_arms is None else f"{n_arms:,} arm{'s' if n_arms != 1 else ''}"
    log.info(f"sweep      {count} in {root}, {'each ' if n_arms != 1 else ''}with its train.log")


def arm_in_work(number: int, words: Sequence[str], out: Path) -> AbstractContextManager[None]:
    """Inside, the terminal shows of the arm's log only what went wrong, and maybe a live bar."""
    plan = _plan()
    has_bar = plan.process == os.getpid()
    name, label = _name(plan, number), _label(plan, words)
    return terminal.shown_of_arm(terminal.Arm(name, label, str(out), has_bar))


def run_name(words: Sequence[str], model: str) -> str:
    """What a run with these words is called in W&B: an arm by what sets it apart from others."""
    return labels.run_name(words, model, _plan().varied)


def show_end(root: Path, number: int, words: Sequence[str], result: ArmResult) -> None:
    """Log the line of an arm that has ended; one that failed has said so when it did."""
    if result.status == "failed":
        return
    plan = _plan()
    outcome = "pruned" if result.value is None else f"bpb {result.value:.4f}"
    if _was_complete(plan, arms.place(root, number)):
        outcome += " (was complete)"
    (best, best_label), left = _state(plan, root)
    name, label = _name(plan, number), _label(plan, words)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    log.info(_line(name, label, outcome, best, best_label, left, width))


def _line(
    name: str, label: str, outcome: str, best: str, best_label: str, left: str, width: int | None
) -> str:
    """The parts in one line of so many columns, the most telling ones where there are few."""
    whole_best = f"{best} ({best_label})" if best and best_label else best
    brief = (best.replace("best so far", "best"), left.removeprefix("about "))
    for others in ((whole_best, left), (best, left), brief, brief[1:], ()):
        line = "  ".join(part for part in (name, label, outcome, *others) if part)
        if width is None or len(line) <= width:
            return line
    room = width - len(f"{name}    {outcome}")
    if room >= SHORTEST:
        return f"{name}  {label[: room - 1]}…  {outcome}"
    shortest = name.removeprefix("arm ").replace(" of ", "/"), outcome.removeprefix("bpb ")
    line = f"{name}  {outcome}"
    return line if len(line) <= width else "  ".join(shortest)


def has_run(folders: Sequence[Path]) -> bool:
    """Whether this command has tried one of these arms, and not found all of them complete."""
    plan = _plan()
    return not all(_was_complete(plan, folder) for folder in folders)


# --------------------------------------------------------------------------- what is known of it


def _plan() -> Plan:
    text = os.environ.get(PLAN)
    return msgspec.json.decode(text, type=Plan) if text else Plan()


def _name(plan: Plan, number: int) -> str:
    """Arms are counted from 1, as "5 of 8" says; their directories from 0."""
    return f"arm {number + 1} of {plan.n_arms}" if plan.n_arms else f"arm {number + 1}"


def _label(plan: Plan, words: Sequence[str], seed: bool = True) -> str:
    keys = labels.settings(words) if plan.varied is None else plan.varied
    return labels.label(words, [key for key in keys if seed or key != "seed"])


def _was_complete(plan: Plan, out: Path) -> bool:
    """Whether the arm was complete before this command."""
    touched = _touched(out / SUMMARY)
    return touched is not None and touched < plan.started


def _state(plan: Plan, root: Path) -> tuple[tuple[str, str], str]:
    """The best score so far and the label of its settings; about how long the other arms take."""
    n_trained = 0.0  # since the command started; half of each arm that is in work
    n_left = 0.0
    is_search = (root / STUDY).exists()
    scored: list[ArmResult] = []
    for number in range(plan.n_arms or 0):
        out = arms.place(root, number)
        touched = _touched(out / RESULT)
        if touched is not None:
            with contextlib.suppress(DamagedError):  # the end of the sweep names it
                result = _read(out / RESULT, touched)
                if result.value is not None:
                    scored.append(result)
        if touched is not None and touched >= plan.started:
            n_trained += not _was_complete(plan, out)
        elif not (_was_complete(plan, out) or (is_search and touched is not None)):
            n_left += 1
            if (_touched(out / HOLDER) or 0.0) >= plan.started:
                n_trained += 0.5
                n_left -= 0.5
    left = ""
    if n_trained and n_left:
        left = f"about {_duration((time.time() - plan.started) / n_trained * n_left)} left"
    if not scored or ranking.is_of_several_texts(plan.varied or []):
        return ("", ""), left
    best = min(scored, key=lambda result: result.value or 0.0)
    return (f"best so far {best.value:.4f}", _label(plan, best.overrides, seed=False)), left


def _touched(path: Path) -> float | None:
    """When a file was written, in seconds since 1970; None if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


@functools.cache
def _read(path: Path, touched: float) -> ArmResult:
    """A result as it was written at that time: it is asked for again at the end of each arm."""
    return arms.read_result(path)


def _duration(seconds: float) -> str:
    """40 s, 4 min, 3.5 h, 2.1 days."""
    if seconds < 55:
        return f"{max(1, round(seconds / 10)) * 10} s"
    if seconds < 3570:
        return f"{max(1, round(seconds / 60))} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
