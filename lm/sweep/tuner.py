"""A Hydra sweeper that searches with Optuna: journal file, resume, pruning, many processes.

    python -m lm.train -m hydra/sweeper=lm hydra.sweeper.n_trials=30 hydra.sweeper.pruner=median \\
        'optimizer.lr=tag(log, interval(1e-4,3e-2))' 'model.n_layer=range(2,6)'

A trial is an arm of the sweep, in the directory of its number. The same command with
hydra.sweep.dir=DIR goes on, also from several processes or machines that share DIR at once.
Needs the extra `sweep`.
"""

import dataclasses
import hashlib
import importlib
import itertools
import json
import logging
import os
import socket
import sys
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lm import config
from lm.sweep import ranking
from lm.sweep.space import TunerConfig
from lm.system import files, store
from lm.system.errors import ConfigError, Pruned

log = logging.getLogger(__name__)
STUDY = "study.json"  # in the sweep's directory: which journal, which pruner
SILENT = 600.0  # seconds without a sign of life after which another machine's trial is taken over


class Tuner(Sweeper):
    """Optuna's ask and tell around Hydra's launcher. What a trial gave is read from its files."""

    def __init__(self, **settings: Any) -> None:
        self.settings = TunerConfig(**{**settings, "params": settings["params"] or {}})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        self.parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        optuna = _optuna()
        root = Path(self.config.hydra.sweep.dir)
        root.mkdir(parents=True, exist_ok=True)
        fixed, space = search_space(self.parser, self.settings.params, arguments)
        about = {"journal": self.settings.storage or "optuna.journal", "study": "lm"}
        about |= {"pruner": self.settings.pruner, "warmup": self.settings.warmup}
        about |= signature(fixed, space)
        files.atomic_write(root / STUDY, json.dumps(about, indent=1) + "\n")
        OmegaConf.save(self.config, root / "multirun.yaml")
        study = open_study(root)
        with store.waited_lock(root / ".tuner.lock"):
            grid = self.settings.sampler == "grid"
            total = _enqueue_grid(study, space) if grid else self.settings.n_trials
        if study.trials:
            log.info(f"{len(study.trials)} of {total} trials are there already, in {root}")
        while True:
            batch = self._next(study, root, space, total)
            if not batch:
                break
            for trials in consecutive(batch):
                words = [[*fixed, *(f"{k}={v}" for k, v in t.params.items())] for t in trials]
                self.launcher.launch(words, initial_job_idx=trials[0].number)
                for trial in trials:
                    _tell(optuna, study, trial, root)
        _conclude(optuna, study, root)

    def _next(self, study: Any, root: Path, space: dict, total: int) -> list[Any]:
        """The trials to run now: those that a killed process left, then new ones."""
        optuna = _optuna()
        with store.waited_lock(root / ".tuner.lock"):
            batch = []
            for left in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
                if len(batch) < self.settings.n_jobs and _abandoned(left, root):
                    log.info(f"trial {left.number} was left unfinished and goes on")
                    batch.append(optuna.trial.Trial(study, left._trial_id))
            while len(batch) < self.settings.n_jobs:
                waiting = optuna.trial.TrialState.WAITING
                there = study.get_trials(deepcopy=False)
                if len(there) >= total and not any(t.state == waiting for t in there):
                    break
                # A seed of its own for every trial: a process that starts anew, or a second one,
                # would otherwise draw the first trials again.
                study.sampler = _sampler(optuna, self.settings, len(there))
                batch.append(study.ask(space))
            for trial in batch:
                trial.set_user_attr("worker", [socket.gethostname(), os.getpid()])
        return sorted(batch, key=lambda t: t.number)


def consecutive(trials: Sequence[Any]) -> list[list[Any]]:
    """The trials in groups of successive numbers: a launcher numbers its jobs that way."""
    groups = itertools.groupby(enumerate(trials), lambda pair: pair[1].number - pair[0])
    return [[trial for _, trial in group] for _, group in groups]


# ---------------------------------------------------------------------------- the search space


def search_space(
    parser: OverridesParser, params: dict[str, Any], arguments: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """The words that stay, and Optuna's distribution of each setting that is searched.

    Hydra's own grammar: interval(a,b) is a real number, int(interval(a,b)) and range(a,b) whole
    ones, tag(log, ...) draws on a logarithmic scale, a,b,c is a choice. `params` come first, the
    command line wins.
    """
    words = [f"{k}={v}" for k, v in (params or {}).items()]
    overrides = {}
    for override in parser.parse_overrides([*words, *arguments]):
        overrides.pop(override.get_key_element(), None)
        overrides[override.get_key_element()] = override
    fixed, space = [], {}
    for key, override in overrides.items():
        if not override.is_sweep_override():
            fixed.append(override.input_line)
        elif key == "seed":
            raise ConfigError(
                f"{override.input_line}: a seed is not tuned; give one, and repeat the best "
                "settings with seed=0,1,2"
            )
        else:
            space[key] = distribution(override)
    if not space:
        raise ConfigError(
            "nothing to tune: give at least one setting as interval(a,b), range(a,b) or a,b,c"
        )
    return fixed, space


def signature(fixed: Sequence[str], space: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a search to go on, as plain JSON values.

    These are the words that stay, less those that change no score, and of the settings that are
    searched the kind; an interval may be another one.
    """
    kinds = {}
    for key, spread in space.items():
        choices = getattr(spread, "choices", None)
        kinds[key] = list(choices) if choices else [type(spread).__name__, spread.log]
    return {"fixed": deciding(fixed), "space": kinds}


def deciding(words: Sequence[str]) -> list[str]:
    """Those of the words that decide a score, as key=value, in order."""
    kept = []
    for word in words:
        key, _, value = word.partition("=")
        key = key.strip().lstrip("+")
        if not key.startswith("hydra") and not config.keeps_result(key):
            kept.append(f"{key}={value.strip()}")
    return sorted(kept)


def same_search(root: Path, fixed: Sequence[str], space: dict[str, Any]) -> None:
    """ConfigError if the search in a directory was another one: its trials do not compare."""
    if not (root / STUDY).exists():
        return
    there = files.read_json(root / STUDY, {"fixed?": [str], "space?": dict})
    if "fixed" in there:  # of an lm that kept more words than decide a score
        there["fixed"] = deciding(there["fixed"])
    for key, now in signature(fixed, space).items():
        if key in there and there[key] != now:
            raise ConfigError(
                f"{root} holds another search: {key} is {there[key]} there and {now} here; give it "
                "another hydra.sweep.dir"
            )


def distribution(override: Override) -> Any:
    """What Optuna draws the value of this setting from."""
    d = _optuna().distributions
    value = override.value()
    if isinstance(value, IntervalSweep):
        log_scale = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return d.IntDistribution(value.start, value.end, log=log_scale)
        return d.FloatDistribution(float(value.start), float(value.end), log=log_scale)
    if isinstance(value, RangeSweep) and isinstance(value.step, int):
        numbers = range(int(value.start or 0), int(value.stop), value.step)
        if len(numbers) and value.step > 0 and numbers[0] == value.start:
            return d.IntDistribution(numbers[0], numbers[-1], step=value.step)
    return d.CategoricalDistribution(tuple(override.sweep_string_iterator()))


def _enqueue_grid(study: Any, space: dict[str, Any]) -> int:
    """Put every point of the grid into the queue, once; return how many there are."""
    d = _optuna().distributions
    axes = []
    for key, spread in space.items():
        if isinstance(spread, d.CategoricalDistribution):
            axes.append(spread.choices)
        elif isinstance(spread, d.IntDistribution) and not spread.log:
            axes.append(tuple(range(spread.low, spread.high + 1, spread.step)))
        else:
            raise ConfigError(
                f"{key} is an interval: sampler=grid takes a,b,c or range(a,b); or use sampler=tpe"
            )
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]
    for point in points:
        study.enqueue_trial(point, skip_if_exists=True)
    return len(points)


# ------------------------------------------------------------------------------- journal, study


def open_study(root: Path) -> Any:
    """The study of a sweep's directory, made if it is not there; several processes may hold it."""
    optuna = _optuna()
    from optuna.storages import journal

    about = files.read_json(root / STUDY)
    path = root / about["journal"]
    lock = journal.JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        _repair(path)
    finally:
        lock.release()
    backend = journal.JournalFileBackend(str(path), lock_obj=lock)
    return optuna.create_study(
        storage=optuna.storages.JournalStorage(backend),
        study_name=about["study"],
        pruner=_pruner(optuna, about),
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


def _sampler(optuna: Any, settings: TunerConfig, n: int) -> Any:
    # Hashed, as the first draws of neighbouring seeds are near each other.
    digest = hashlib.sha256(f"{settings.seed}/{n}".encode()).digest()
    seed = int.from_bytes(digest[:4], "little")
    if settings.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=settings.n_startup)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(optuna: Any, about: dict[str, Any]) -> Any:
    if about["pruner"] == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=about["warmup"])
    if about["pruner"] == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, about["warmup"]))
    return optuna.pruners.NopPruner()


def _abandoned(trial: Any, root: Path) -> bool:
    """Whether the process that ran this trial is gone."""
    host, pid = trial.user_attrs.get("worker", ["?", 0])
    if host == socket.gethostname():
        # We ask only when we run none: an older process had our number.
        return pid == os.getpid() or not store.alive(pid)
    signs = [p.stat().st_mtime for p in (root / str(trial.number)).glob("*.json*")]
    return time.time() - max(signs, default=trial.datetime_start.timestamp()) > SILENT


# ------------------------------------------------------------------------------ during a trial


def reporter(sweep: Path | None, out: Path) -> Callable[[int, float], None] | None:
    """What tells the study of a trial's validation score, and raises arms.Pruned if it is to end.

    None outside a study that prunes. It works in any process that sees the sweep's directory.
    """
    if sweep is None or not (sweep / STUDY).exists() or not out.name.isdigit():
        return None
    if files.read_json(sweep / STUDY)["pruner"] == "none":
        return None
    optuna, study = _optuna(), open_study(sweep)
    (saved,) = (t for t in study.get_trials(deepcopy=False) if t.number == int(out.name))
    trial = optuna.trial.Trial(study, saved._trial_id)
    told = set(saved.intermediate_values)  # before a kill

    def report(step: int, score: float) -> None:
        if step == 0:
            return  # weights that have learned nothing say nothing about the settings
        if step not in told:
            trial.report(score, step)
        if trial.should_prune():
            raise Pruned(f"val/bpb {score:.4f} at step {step} is behind the other trials")

    return report


def _tell(optuna: Any, study: Any, trial: Any, root: Path) -> None:
    """Record what became of a trial: ok, pruned, or failed with its error."""
    path = root / str(trial.number) / ranking.RESULT
    result = ranking.ArmResult(status="failed", error="no result")
    if path.exists():
        result = ranking.read_result(path)
    state = optuna.trial.TrialState
    outcome = f"{result.error}"
    if result.status == "ok":
        study.tell(trial, result.value)
        outcome = f"{result.value:.4f}"
    else:
        trial.set_user_attr("error", result.error)
        study.tell(trial, state=state.PRUNED if result.status == "pruned" else state.FAIL)
    row = {"trial": trial.number, "params": trial.params, "status": result.status}
    row |= {"value": result.value, "error": result.error}
    with open(root / "trials.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    log.info(f"trial {trial.number} {result.status}: {outcome}")


def _conclude(optuna: Any, study: Any, root: Path) -> None:
    """Print and write the best settings and how much each setting mattered."""
    state = optuna.trial.TrialState
    n = {s: len(study.get_trials(deepcopy=False, states=(s,))) for s in state}
    summary: dict[str, Any] = {s.name.lower(): count for s, count in n.items() if count}
    if n[state.COMPLETE]:
        best = study.best_trial
        summary |= {"best_trial": best.number, "best_value": best.value, "best": best.params}
        words = " ".join(f"{k}={v}" for k, v in best.params.items())
        others = f", {n[state.RUNNING]} still running" if n[state.RUNNING] else ""
        of = f"{len(study.trials) - n[state.RUNNING]} trials{others}"
        log.info(f"best of {of}: {best.value:.4f} with {words}")
        summary["importance"] = importance(optuna, study)
        for key, share in summary["importance"].items():
            log.info(f"  importance {share:5.0%}  {key}")
    else:
        log.info(f"no trial of {len(study.trials)} is complete: see their error.log in {root}")
    OmegaConf.save(OmegaConf.create(summary), root / "optimization_results.yaml")


def importance(optuna: Any, study: Any) -> dict[str, float]:
    """The share of each setting in what made good trials good; empty if there is too little."""
    try:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):  # fewer than two complete trials, or all of one value
        return {}
    return {key: float(share) for key, share in found.items()}


# ---------------------------------------------------------------------------------- for Hydra


def register() -> None:
    """Make `hydra/sweeper=lm` known; Hydra 1.3 takes plugins from hydra_plugins.* alone."""
    try:
        importlib.import_module("hydra_plugins")
    except ImportError:  # no other plugin is installed
        package = sys.modules["hydra_plugins"] = types.ModuleType("hydra_plugins")
        package.__path__ = []
    module = sys.modules.setdefault("hydra_plugins.lm", types.ModuleType("hydra_plugins.lm"))
    module.Tuner = Tuner  # type: ignore[attr-defined]
    Tuner.__module__ = "hydra_plugins.lm"
    Plugins.instance().register(Tuner)
    node = {"_target_": "hydra_plugins.lm.Tuner", **dataclasses.asdict(TunerConfig())}
    ConfigStore.instance().store(group="hydra/sweeper", name="lm", node=node, provider="lm")


def corners(parser: OverridesParser, params: dict[str, Any], words: Sequence[str]) -> list:
    """Jobs with every setting at its first and at its last value, to check before the first one."""
    fixed, space = search_space(parser, params, words)
    ends = []
    for pick in (0, -1):
        at = {}
        for key, spread in space.items():
            values = getattr(spread, "choices", None) or (spread.low, spread.high)
            at[key] = values[pick]
        ends.append([*fixed, *(f"{k}={v}" for k, v in at.items())])
    return ends


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "hydra/sweeper=lm needs Optuna: pip install 'lm[sweep]' (grids need nothing)"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
