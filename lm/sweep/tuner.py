"""A search with Optuna around Hydra's launcher: resumable, pruned, shared by many processes.

    python -m lm.train -m hydra/sweeper=lm hydra.sweeper.n_trials=30 hydra.sweeper.pruner=median \\
        'optimizer.lr=tag(log, interval(1e-4,3e-2))' 'model.n_layer=range(2,6)'

A trial is an arm of the sweep, in the directory of its number. The same command with
hydra.sweep.dir=DIR goes on, also from several processes or machines that share DIR at once.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from lm.settings.commands import TunerConfig
from lm.sweep import arms, space, study
from lm.sweep.arms import RESULT, ArmResult
from lm.sweep.space import Space, load_optuna
from lm.system import files, store
from lm.system.errors import DamagedError
from lm.system.text import shell_word

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

log = logging.getLogger(__name__)
# Starts the jobs of a batch and waits for them: their words, and the number of the first.
Launch = Callable[[Sequence[Sequence[str]], int], object]


class Search:
    """Optuna's ask and tell. What a trial gave is read from the files in its directory."""

    def __init__(
        self, root: Path, settings: TunerConfig, fixed: Sequence[str], searched: Space
    ) -> None:
        self.root = root
        self.settings = settings
        self.fixed = fixed
        self.space = searched
        study.describe(root, settings, fixed, searched)
        self.study = study.open_study(root)
        self.journal = study.journal_of(root)
        self.held = study.Held(root)
        self.n_trials = settings.n_trials
        if settings.sampler == "grid":
            with study.lock(self.journal):
                self.n_trials = enqueue_grid(self.study, searched)

    def run(self, launch: Launch) -> None:
        """Run trials until there are as many as asked for, and say which was the best."""
        n_before = len(self.study.trials)
        if n_before:
            log.info(f"{n_before} of {self.n_trials} trials are there already, in {self.root}")
        while True:
            batch = self.next_trials()
            if not batch:
                break
            for trials in consecutive(batch):
                launch([self._words(trial) for trial in trials], trials[0].number)
                for trial in trials:
                    record_trial(self.study, trial, self.root)
                    self.held.let_go(trial.number)
        conclude(self.study, self.root)

    def next_trials(self) -> list["Trial"]:
        """The trials to run now: those that a killed process left, then new ones."""
        states = load_optuna().trial.TrialState
        batch = []
        with study.lock(self.journal):
            running = self.study.get_trials(deepcopy=False, states=(states.RUNNING,))
            for saved in running:
                if len(batch) == self.settings.n_jobs:
                    break
                if self._take_over(saved.number):
                    log.info(f"trial {saved.number} was left unfinished and goes on")
                    self.study.sampler = study.sampler(self.settings, saved.number)
                    batch.append(study.saved_trial(self.study, saved))
                    study.draw(batch[-1], self.space)
            while len(batch) < self.settings.n_jobs:
                trials = self.study.get_trials(deepcopy=False)
                is_waiting = any(trial.state == states.WAITING for trial in trials)
                if len(trials) >= self.n_trials and not is_waiting:
                    break
                self.study.sampler = study.sampler(self.settings, len(trials))
                batch.append(self.study.ask(dict(self.space)))
                self.held.take(batch[-1])
        return sorted(batch, key=lambda trial: trial.number)

    def _take_over(self, number: int) -> bool:
        """Hold a trial that was running, if no process works on it and none has finished it."""
        saved = self.study.get_trials(deepcopy=False)[number]
        if not self.held.take(saved):
            return False
        saved = self.study.get_trials(deepcopy=False)[number]  # it may have ended just before
        if saved.state.is_finished():
            self.held.let_go(number)
        return not saved.state.is_finished()

    def _words(self, trial: "Trial") -> list[str]:
        drawn = [f"{key}={value}" for key, value in trial.params.items()]
        return [*self.fixed, *drawn]


def consecutive(trials: Sequence["Trial"]) -> list[list["Trial"]]:
    """The trials in groups of successive numbers: a launcher numbers its jobs that way."""
    groups: list[list[Trial]] = []
    for trial in trials:
        if groups and trial.number == groups[-1][-1].number + 1:
            groups[-1].append(trial)
        else:
            groups.append([trial])
    return groups


def enqueue_grid(there: "Study", searched: Space) -> int:
    """Put every point of the grid into the queue, once; return how many there are."""
    points = space.grid(searched)
    for point in points:
        there.enqueue_trial(point, skip_if_exists=True)
    return len(points)


def record_trial(there: "Study", trial: "Trial", root: Path) -> None:
    """Record what became of a trial: ok, pruned, or failed with its error.

    Nothing, if another process is still at it.
    """
    states = load_optuna().trial.TrialState
    out = arms.place(root, trial.number)
    with contextlib.suppress(OSError):  # no locks here
        if store.is_locked(out):
            log.info(f"trial {trial.number} is trained by another process, in {out}")
            return
    result = result_of(out)
    if result.status == "ok":
        there.tell(trial, result.value)
    else:
        state = states.PRUNED if result.status == "pruned" else states.FAIL
        trial.set_user_attr("error", result.error)
        there.tell(trial, state=state)
    row = {
        "trial": trial.number,
        "params": trial.params,
        "status": result.status,
        "value": result.value,
        "error": result.error,
    }
    files.append_line(root / "trials.jsonl", json.dumps(row))


def result_of(out: Path) -> ArmResult:
    """What became of the trial in this directory; failed, if there is nothing to learn from."""
    path = out / RESULT
    try:
        if not path.exists():
            raise DamagedError(f"no result: there is no {path}")
        return arms.read_result(path)
    except DamagedError as error:  # the trial itself could not say so
        log.warning(f"{error}")
        return ArmResult(status="failed", error=str(error))


def conclude(there: "Study", root: Path) -> None:
    """Print and write the best settings and how much each setting mattered."""
    summary: dict[str, Any] = _counts(there)
    n_trials = len(there.trials)
    if "complete" in summary:
        best = there.best_trial
        n_running = summary.get("running", 0)
        count = f"{n_trials - n_running} trials"
        if n_running:
            count += f", {n_running} still running"
        words = " ".join(f"{key}={value}" for key, value in best.params.items())
        log.info(f"best of {count}: {best.value:.4f} with {words}")
        shares = importance(there)
        for key, share in shares.items():
            log.info(f"  importance {share:5.0%}  {key}")
        journal = shell_word(str(study.journal_of(root)))
        log.info(f"optuna-dashboard {journal} shows the trials (pip install optuna-dashboard)")
        summary["best_trial"] = best.number
        summary["best_value"] = best.value
        summary["best"] = best.params
        summary["importance"] = shares
    else:
        log.info(f"no trial of {n_trials} is complete: see their error.log in {root}")
    text = OmegaConf.to_yaml(OmegaConf.create(summary))
    files.atomic_write(root / "optimization_results.yaml", text)


def _counts(there: "Study") -> dict[str, int]:
    """The number of trials by their state, those of none left out."""
    counts = {}
    for state in load_optuna().trial.TrialState:
        trials = there.get_trials(deepcopy=False, states=(state,))
        if trials:
            counts[state.name.lower()] = len(trials)
    return counts


def importance(there: "Study") -> dict[str, float]:
    """The share of each setting in what made good trials good; empty if there is too little."""
    tools = load_optuna().importance
    try:
        shares = tools.get_param_importances(there, evaluator=tools.PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):  # fewer than two complete trials, or all of one value
        return {}
    return {key: float(share) for key, share in shares.items()}
