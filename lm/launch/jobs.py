"""One training run to do, and its directory: whose it is, and what may change when it goes on.

claim(job)              # the directory is this run's, or is refused
score = finished(job)   # None if it has steps to do
"""

import contextlib
import json
import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lm import config
from lm.config import Config
from lm.system import files
from lm.system.errors import ConfigError, OtherRunError

log = logging.getLogger(__name__)
BUDGETS = ("train.steps", "train.tokens", "train.flops", "train.seconds")
# When a run is continued.
MAY_CHANGE = (*BUDGETS, "train.micro_batch", "train.n_proc", "train.shard", "train.dist_timeout")
# What a run writes before its first step.
STARTED = (config.RESOLVED, "train.log", ".running", "tokenizer.json")
STARTED = (*STARTED, "data.json", "code.json", "code.diff")


@dataclass
class Job:
    """One training run to do: what, where, and which arm of which sweep it is."""

    cfg: Config
    out: Path
    overrides: list[str]
    sweep: Path | None = None

    @property
    def group(self) -> str | None:
        """The W&B group: the name of the sweep."""
        return "-".join(self.sweep.parts[-2:]) if self.sweep else None


def claim(job: Job) -> None:
    """Write the job's configuration into its directory, or find it there unchanged.

    A directory that holds a run with other settings is refused: its checkpoints are not ours.
    """
    path = job.out / config.RESOLVED
    if path.exists():
        changed = _changed(path, job.cfg)
        if differ := ", ".join(text for key, text in changed.items() if key not in MAY_CHANGE):
            raise OtherRunError(f"{job.out} holds another run: {differ}; choose another directory")
        if not changed or (job.sweep and _extended(job.out)):
            return  # an arm that somebody has made longer stays as it is
        if changed.keys() & set(BUDGETS):
            _extend(job)
    config.save(job.cfg, path)


def same_arm(out: Path, cfg: Config) -> None:
    """ConfigError if the directory holds an arm with other settings: they have their place by
    their number, so another sweep would take one for the other."""
    path = out / config.RESOLVED
    if not path.exists():
        return
    free = MAY_CHANGE if _extended(out) else set(MAY_CHANGE) - set(BUDGETS)
    if differ := [text for key, text in _changed(path, cfg).items() if key not in free]:
        raise ConfigError(
            f"{out} is an arm of another sweep: {', '.join(differ)}; the same command goes on in "
            f"{out.parent}, another one takes another hydra.sweep.dir"
        )


def _changed(path: Path, cfg: Config) -> dict[str, str]:
    """The settings in which a saved configuration is another one, each with both values told."""
    try:
        there, here = config.flat(config.load(path)), config.flat(cfg)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return {
        k: f"{k} is {there.get(k)} there and {here[k]} here"
        for k in here
        if k not in there or here[k] != there[k]
    }


def _extend(job: Job) -> None:
    """Let a run go on to another end: its code.json then names the step at which it stands, as its
    schedule is not that of a run which was that long from the start."""
    names = [path.name[5:] for path in (job.out / "checkpoints").glob("step_*")]
    step = max((int(name) for name in names if name.isdecimal()), default=0)
    train = job.cfg.train
    end = train.steps if not train.budgets() else math.inf
    if train.tokens:
        end = -(-train.tokens // (train.batch_size * job.cfg.model.context_len))
    if end < step:
        budget = (*train.budgets(), f"train.steps={train.steps}")[0]
        raise ConfigError(f"{budget} ends before step {step}, of which {job.out} has a checkpoint")
    code, ends = job.out / "code.json", _extended(job.out)
    if code.exists() and step and step not in ends:
        about = files.read_json(code, dict) | {"extended": [*ends, step], "exact_resume": False}
        files.atomic_write(code, json.dumps(about, indent=1) + "\n")
    (job.out / "summary.json").unlink(missing_ok=True)  # there is more to do


def _extended(out: Path) -> list[int]:
    """The steps at which a run stood when it was given another budget."""
    code = out / "code.json"
    return files.read_json(code, {"extended?": [int]}).get("extended", []) if code.exists() else []


@contextlib.contextmanager
def whole_or_absent(job: Job) -> Iterator[None]:
    """Take a new run's directory away again where its settings or text keep it from starting.

    `latest` then still means the run before. An arm of a sweep stays, with its error.
    """
    fresh = not (job.out / config.RESOLVED).exists()
    try:
        yield
    except (ValueError, FileNotFoundError):
        if fresh and not job.sweep and not (job.out / "metrics.jsonl").exists():
            for name in STARTED:
                (job.out / name).unlink(missing_ok=True)
            shutil.rmtree(job.out / ".hydra", ignore_errors=True)
            with contextlib.suppress(OSError):  # whatever else lies there is somebody's
                job.out.rmdir()
        raise


def finished(job: Job) -> float | None:
    """The score of a job that was done before; None if it has steps to do."""
    path = job.out / "summary.json"
    if not path.exists():
        return None
    summary = files.read_json(path, {"step": int, "best_val_bpb": (int, float, str)})
    log.info(f"{job.out} is already complete at step {summary['step']}")
    return float(summary["best_val_bpb"])
