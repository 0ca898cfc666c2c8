"""Optuna's study of a sweep: a journal file that any number of processes share and none spoils.

study = open_study(root)
report = reporter(sweep, out)      # in the process of a trial: report(step, score)
"""

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lm.sweep import space
from lm.sweep.space import Space, TunerConfig, load_optuna
from lm.system import files, store
from lm.system.errors import ConfigError, Pruned

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

STUDY = "study.json"  # in the sweep's directory: which journal, which pruner
SILENT = 600.0  # seconds without a sign of life after which another machine's trial is taken over


class StudyRecord(msgspec.Struct):
    """study.json: where the trials are, what ends them, and what the search is about."""

    journal: str = "optuna.journal"
    study: str = "lm"
    pruner: str = "none"
    warmup: int = 0
    fixed: list[str] | None = None  # the words that decide a score; of older searches all
    space: dict[str, list[Any]] | None = None  # the kind of each setting that is searched


def describe(root: Path, settings: TunerConfig, fixed: Sequence[str], searched: Space) -> None:
    """Write the study.json of a search."""
    record = StudyRecord(
        journal=settings.storage or "optuna.journal",
        pruner=settings.pruner,
        warmup=settings.warmup,
        fixed=space.deciding(fixed),
        space=space.kinds(searched),
    )
    files.atomic_write(root / STUDY, files.to_json(record) + "\n")


def read_description(root: Path) -> StudyRecord:
    return files.read_record(root / STUDY, StudyRecord)


def same_search(root: Path, fixed: Sequence[str], searched: Space) -> None:
    """ConfigError if the search in a directory was another one: its trials do not compare."""
    if not (root / STUDY).exists():
        return
    there = read_description(root)
    compared: list[tuple[str, Any, Any]] = []
    if there.fixed is not None:
        compared.append(("fixed", space.deciding(there.fixed), space.deciding(fixed)))
    if there.space is not None:
        compared.append(("space", there.space, space.kinds(searched)))
    for key, before, now in compared:
        if before != now:
            raise ConfigError(
                f"{root} holds another search: {key} is {before} there and {now} here; give it "
                "another hydra.sweep.dir"
            )


def open_study(root: Path) -> "Study":
    """The study of a sweep's directory, made if it is not there; several processes may hold it."""
    optuna = load_optuna()
    from optuna.storages import journal

    record = read_description(root)
    path = root / record.journal
    journal_lock = journal.JournalFileSymlinkLock(str(path))
    journal_lock.acquire()
    try:
        _repair(path)
    finally:
        journal_lock.release()
    backend = journal.JournalFileBackend(str(path), lock_obj=journal_lock)
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=record.study,
        pruner=_pruner(record),
        load_if_exists=True,
    )


def _repair(path: Path) -> None:
    """Cut off a last line without its end: a kill while it was written would spoil the journal."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        data = file.read()
        if data and not data.endswith(b"\n"):
            file.truncate(data.rfind(b"\n") + 1)


def sampler(settings: TunerConfig, number: int) -> "BaseSampler":
    """What draws the trial of this number, from a seed of its own.

    A process that starts anew, or a second one, would otherwise draw the first trials again.
    """
    samplers = load_optuna().samplers
    # Hashed, as the first draws of neighbouring seeds are near each other.
    digest = hashlib.sha256(f"{settings.seed}/{number}".encode()).digest()
    seed = int.from_bytes(digest[:4], "little")
    if settings.sampler == "tpe":
        return samplers.TPESampler(seed=seed, n_startup_trials=settings.n_startup)
    return samplers.RandomSampler(seed=seed)


def _pruner(record: StudyRecord) -> "BasePruner":
    pruners = load_optuna().pruners
    if record.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=record.warmup)
    if record.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, record.warmup))
    return pruners.NopPruner()


def lock(root: Path) -> contextlib.AbstractContextManager:
    """Holds the search against the other processes that share it, once they let it go."""
    return store.waited_lock(root / ".tuner.lock")


# --------------------------------------------------------------------------------- single trials


def saved_trial(study: "Study", saved: "FrozenTrial") -> "Trial":
    """A trial of the journal, to go on with."""
    return load_optuna().trial.Trial(study, saved._trial_id)


def is_abandoned(trial: "FrozenTrial", root: Path) -> bool:
    """Whether the process that ran this trial is gone."""
    host, pid = trial.user_attrs.get("worker", ["?", 0])
    if host == socket.gethostname():
        # We ask only when we run none: an older process had our number.
        return pid == os.getpid() or not store.alive(pid)
    signs = [path.stat().st_mtime for path in (root / str(trial.number)).glob("*.json*")]
    if not signs and trial.datetime_start is not None:
        signs = [trial.datetime_start.timestamp()]
    return time.time() - max(signs, default=0.0) > SILENT


def reporter(sweep: Path | None, out: Path) -> Callable[[int, float], None] | None:
    """What reports a trial's validation score to its study, and raises Pruned if it is to end.

    None outside a study that prunes. It works in any process that sees the sweep's directory.
    """
    if sweep is None or not (sweep / STUDY).exists() or not out.name.isdigit():
        return None
    if read_description(sweep).pruner == "none":
        return None
    study = open_study(sweep)
    (saved,) = (t for t in study.get_trials(deepcopy=False) if t.number == int(out.name))
    trial = saved_trial(study, saved)
    reported = set(saved.intermediate_values)  # before a kill

    def report(step: int, score: float) -> None:
        if step == 0:
            return  # weights that have learned nothing say nothing about the settings
        if step not in reported:
            trial.report(score, step)
        if trial.should_prune():
            raise Pruned(f"val/bpb {score:.4f} at step {step} is behind the other trials")

    return report
