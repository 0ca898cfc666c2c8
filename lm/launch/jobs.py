"""One training run to do, and its directory: whose it is, and what may change when it goes on.

check(job)              # the directory is free, or this run's; nothing is written
claim(job)              # from now on it is this run's
score = finished(job)   # None if it has steps to do
"""

import contextlib
import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from lm import config
from lm.config import Config
from lm.launch import directory
from lm.record import ownership
from lm.record.schemas import CodeRecord, Summary, read_part
from lm.sweep import arms
from lm.system import files, store
from lm.system.errors import ConfigError, DamagedError, NoCheckpointError, OtherRunError

log = logging.getLogger(__name__)
LISTED = 6  # differing settings that an error names


@dataclass
class Job:
    """One training run to do: what, where, and which arm of which sweep it is."""

    cfg: Config
    out: Path
    overrides: list[str]
    sweep: Path | None = None
    hydra: dict[str, str] = field(default_factory=dict)  # what Hydra composed, by the file's name
    besides: tuple[str, ...] = ()  # names in the directory that Hydra itself has written
    number: int | None = None  # of the arm in its sweep

    @property
    def group(self) -> str | None:
        """The W&B group: the name of the sweep."""
        return arms.group(self.sweep) if self.sweep else None


def check(job: Job) -> None:
    """Raise OtherRunError unless the directory is free or holds this run; nothing is written."""
    directory.check(job.out, job.besides)
    _check_settings(job)


def _check_settings(job: Job) -> None:
    """Raise OtherRunError if the directory has the settings of another run."""
    path = job.out / config.RESOLVED
    if not path.exists():
        return
    changed = _changes(path, job.cfg)
    wrong = [text for key, text in changed.items() if not may_change(key)]
    if wrong:
        raise OtherRunError(
            f"{job.out} holds another run: {_listed(wrong)}; choose another directory"
        )
    if changed.keys() & set(config.BUDGETS) and not _stays_longer(job):
        _check_end(job)


def claim(job: Job) -> None:
    """Write the job's configuration into its directory, or find it there unchanged.

    A directory that holds a run with other settings is refused: its checkpoints are not ours.
    """
    _check_settings(job)
    path = job.out / config.RESOLVED
    if not is_settled(job):
        if path.exists() and _changes(path, job.cfg).keys() & set(config.BUDGETS):
            _extend(job)
        ownership.save(job.cfg, job.out)
    for name, text in job.hydra.items():
        file = job.out / name
        files.make_folder(file.parent)
        files.atomic_write(file, text)


def is_settled(job: Job) -> bool:
    """Whether the directory has these very settings, by this user: nothing of them is to be
    written."""
    path = job.out / config.RESOLVED
    if not path.exists():
        return False
    return _stays_longer(job) or (
        not _changes(path, job.cfg) and ownership.is_signed(job.out, job.cfg)
    )


def _stays_longer(job: Job) -> bool:
    """Whether this is an arm that somebody has made longer: it stays as it is."""
    return job.sweep is not None and bool(_extended(job.out))


def may_change(key: str) -> bool:
    """Whether a run that goes on may have another value of this setting than before."""
    return key in config.BUDGETS or config.keeps_result(key)


def same_arm(root: Path, out: Path, cfg: Config) -> None:
    """ConfigError if the directory holds an arm with other settings: they have their place by
    their number, so another sweep would take one for the other."""
    path = out / config.RESOLVED
    if not path.exists():
        return
    is_free = may_change if _extended(out) else config.keeps_result
    wrong = [text for key, text in _changes(path, cfg).items() if not is_free(key)]
    if wrong:
        raise ConfigError(
            f"{out} is an arm of another sweep: {_listed(wrong)}; the same command goes on in "
            f"{os.path.relpath(root)}, another one takes another hydra.sweep.dir"
        )


def _listed(differences: list[str]) -> str:
    """The first of them: another model differs in two dozen settings."""
    more = len(differences) - LISTED
    return ", ".join(differences[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _changes(path: Path, cfg: Config) -> dict[str, str]:
    """The settings in which a saved configuration is another one, each with both values."""
    try:
        saved = config.load(path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return changes(saved, cfg)


def changes(saved: Config, cfg: Config) -> dict[str, str]:
    """The settings in which `cfg` differs from a saved one: "KEY is OLD there and NEW here"."""
    there = config.flat(saved)
    here = config.flat(cfg)
    found = {}
    for key in here | there:
        if key in cfg.unresolved() and key in there:
            continue  # the number there is what `auto` came to
        if key not in there or key not in here or here[key] != there[key]:
            found[key] = f"{key} is {there.get(key)} there and {here.get(key)} here"
    return found


def _check_end(job: Job) -> None:
    """ConfigError for a new budget that ends before the step at which the run stands.

    NoCheckpointError for a complete run without a checkpoint, such as a copy of its small files:
    there is nothing to go on from, and what it wrote would be cut off.
    """
    step = _newest_step(job.out)
    if step is None:
        with contextlib.suppress(DamagedError):  # _forget_end sets that summary aside
            if read_part(job.out, Summary):
                raise NoCheckpointError(
                    f"{job.out} is complete and has no checkpoint to go on from: put its "
                    "checkpoints/ back, or start a new run"
                )
        step = 0
    train = job.cfg.train
    if job.cfg.unresolved():
        end = math.inf  # it is known once the model is
    elif train.tokens:
        end = math.ceil(train.tokens / (train.batch_size * job.cfg.model.context_len))
    else:
        end = math.inf if train.budgets() else train.steps
    if end < step:
        budget = (*train.budgets(), f"train.steps={train.steps}")[0]
        raise ConfigError(f"{budget} ends before step {step}, of which {job.out} has a checkpoint")


def _extend(job: Job) -> None:
    """Let a run go on to another end: its code.json then names the step at which it stands, as its
    schedule is not that of a run which was that long from the start."""
    step = _newest_step(job.out) or 0
    code = job.out / "code.json"
    ends = _extended(job.out)
    if code.exists() and step and step not in ends:
        about = files.read_record(code, CodeRecord)
        about.extended = [*ends, step]
        about.exact_resume = False
        files.atomic_write(code, about.to_json() + "\n")
    _forget_end(job.out)


def _forget_end(out: Path) -> None:
    """Take the summary.json away, as there is more to do; a file that is none is set aside."""
    try:
        read_part(out, Summary)
    except DamagedError:
        store.set_aside(out / Summary.file)
    (out / Summary.file).unlink(missing_ok=True)


def _newest_step(out: Path) -> int | None:
    """The step of the newest checkpoint, by the names of their folders; None if there is none."""
    names = [path.name.removeprefix("step_") for path in (out / "checkpoints").glob("step_*")]
    return max((int(name) for name in names if name.isdecimal()), default=None)


def _extended(out: Path) -> list[int]:
    """The steps at which a run stood when it was given another budget."""
    code = read_part(out, CodeRecord)
    return code.extended if code else []


def finished(job: Job) -> float | None:
    """The score of a job that was done before; None if it has steps to do."""
    summary = read_part(job.out, Summary)
    if summary is None:
        return None
    log.info(f"{job.out} is already complete at step {summary.step}")
    return summary.best_val_bpb
