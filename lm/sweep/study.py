"""Optuna's study of a sweep: a journal file that any number of processes share and none spoils.

study = open_study(root)
report = reporter(sweep, number)   # in the process of a trial: report(step, score)
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lm.settings.commands import TunerConfig
from lm.sweep import arms, space
from lm.sweep.journal import begin_journal, beside, check_journal, repair_journal, writers_lock
from lm.sweep.space import Space, load_optuna
from lm.system import files, locks, paths, store
from lm.system.errors import ConfigError, DamagedError, Pruned, no_code_for

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)
STUDY = "study.json"  # in the sweep's directory: which journal, which pruner
SILENT = 600.0  # seconds without a sign of life after which, without locks, a trial is taken over


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


def journal_of(root: Path) -> Path:
    """The file that holds the trials of a search; several sweeps may share one."""
    return root / paths.expanded(read_description(root).journal)


def check_storage(storage: str, root: Path | None) -> None:
    """ConfigError or DamagedError if no journal can be there, before anything is written."""
    path = Path(paths.expanded(storage))
    if not storage or not (root or path.is_absolute()):
        return  # in a directory that is still to be made
    path = (root or Path()) / path
    if not path.parent.is_dir():
        raise ConfigError(f"hydra.sweeper.storage={storage}: there is no folder {path.parent}")
    check_journal(path)


def open_study(root: Path) -> "Study":
    """The study of a sweep's directory, made if it is not there; several processes may hold it.

    Raises DamagedError if its journal is none.
    """
    optuna = load_optuna()
    from optuna.storages.journal import JournalFileBackend

    path = journal_of(root)
    record = read_description(root)
    lock = writers_lock(path)
    lock.acquire()
    try:
        if not repair_journal(path):
            begin_journal(path, record.study)
    finally:
        lock.release()
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        about = {"study_name": record.study, "storage": storage, "pruner": _pruner(record)}
        if record.study in optuna.get_all_study_names(storage):  # or even this one would write
            there = optuna.load_study(**about)
        else:
            there = optuna.create_study(**about, load_if_exists=True)
        _check(there)
    except OSError:
        raise
    except Exception as error:  # Optuna raises a dozen unrelated classes, assertions among them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedError(f"{path} is not the journal of a search: {reason}") from None
    return there


def _check(there: "Study") -> None:
    """Raise some error unless the study is a search of ours, with trials that can be learned from.

    Optuna replays a journal without a look at most of what it says.
    """
    from optuna.study import StudyDirection
    from optuna.trial import create_trial

    if there.directions != [StudyDirection.MINIMIZE]:
        raise ValueError("it does not minimise one score")
    for number, trial in enumerate(there.get_trials(deepcopy=False)):
        values = trial.values if trial.values is not None else [0.0]
        scores = [*trial.intermediate_values.values(), *values]
        is_number = all(type(score) in (int, float) for score in scores)
        steps = {type(step) for step in trial.intermediate_values}
        if len(values) != 1 or not is_number or not steps <= {int}:
            raise ValueError(f"trial {number} has scores that are no numbers, or several")
        create_trial(  # which raises where values, settings and state do not go together
            state=trial.state,
            values=trial.values,
            params=trial.params,
            distributions=trial.distributions,
        )


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
    if settings.sampler in ("random", "grid"):  # the tuner has laid out the trials of a grid
        return samplers.RandomSampler(seed=seed)
    raise no_code_for("hydra.sweeper.sampler", settings.sampler)


def _pruner(record: StudyRecord) -> "BasePruner":
    pruners = load_optuna().pruners
    if record.pruner == "median":
        return pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=record.warmup)
    if record.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(1, record.warmup))
    if record.pruner == "none":
        return pruners.NopPruner()
    raise no_code_for("hydra.sweeper.pruner", record.pruner)


def lock(journal: Path) -> contextlib.AbstractContextManager:
    """Holds the choice of the next trials against the other processes, once they let it go."""
    return locks.waited(beside(journal, "tuner.lock"))


# --------------------------------------------------------------------------------- single trials


def saved_trial(study: "Study", saved: "FrozenTrial") -> "Trial":
    """A trial of the journal, to go on with."""
    return load_optuna().trial.Trial(study, saved._trial_id)


def draw(trial: "Trial", searched: Space) -> None:
    """Draw the settings that a trial does not have yet, as its process was killed before that."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    for key, spread in searched.items():
        if key in trial.params:
            continue
        if isinstance(spread, CategoricalDistribution):
            trial.suggest_categorical(key, spread.choices)
        elif isinstance(spread, FloatDistribution):
            trial.suggest_float(key, spread.low, spread.high, step=spread.step, log=spread.log)
        else:
            trial.suggest_int(key, spread.low, spread.high, step=spread.step, log=spread.log)


class Held:
    """The trials that this process works on: a lock each shows the others that it lives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = beside(journal_of(root), "trials")
        files.make_folder(self.folder)
        self.locks: dict[int, BaseFileLock] = {}

    def take(self, trial: "FrozenTrial | Trial") -> bool:
        """Hold a trial from now on; False if another process works on it."""
        try:
            lock = locks.take(self._path(trial.number))
            if lock is None:
                return False
            if store.is_locked(
                arms.place(self.root, trial.number)
            ):  # a job that outlived its search
                lock.release()
                return False
        except OSError:  # no locks here
            return self._is_silent(trial)
        self.locks[trial.number] = lock
        return True

    def let_go(self, number: int) -> None:
        """Hold a trial no longer, as the journal says what became of it."""
        lock = self.locks.pop(number, None)
        if lock is not None:
            self._path(number).unlink(missing_ok=True)
            lock.release()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.lock"

    def _is_silent(self, trial: "FrozenTrial | Trial") -> bool:
        """Whether a trial has given no sign of life for so long that its process must be gone."""
        folder = arms.place(self.root, trial.number)
        signs = [path.stat().st_mtime for path in folder.glob("*.json*")]
        if not signs and trial.datetime_start is not None:
            signs = [trial.datetime_start.timestamp()]
        return time.time() - max(signs, default=0.0) > SILENT


def reporter(sweep: Path | None, number: int | None) -> Callable[[int, float], None] | None:
    """What reports a trial's validation score to its study, and raises Pruned if it is to end.

    None outside a study that prunes. It works in any process that sees the sweep's directory.
    """
    if sweep is None or number is None or not (sweep / STUDY).exists():
        return None
    if read_description(sweep).pruner == "none":
        return None
    study = open_study(sweep)
    trials = study.get_trials(deepcopy=False)
    if number >= len(trials):
        raise DamagedError(f"{journal_of(sweep)} has no trial {number}")
    saved = trials[number]
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
