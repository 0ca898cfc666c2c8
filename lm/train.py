"""Train one run, an experiment or a sweep.

python -m lm.train model=gru tokenizer=char train.steps=500
python -m lm.train -m optimizer.lr=0.01,0.03 seed=0,1,2
python -m lm.train resume=latest train.steps=3000
python -m lm.train --help model=gru             # the settings of that model
python -m lm.train --cfg job model=gpt2         # what would be trained, in YAML
torchrun --nproc-per-node 2 -m lm.train         # or train.n_proc=2: one for each GPU

Each job of a command goes through three functions:

run_job         holds its directory
find_or_train   chooses the processes: torchrun's, some of its own, or this one
train_here      runs in each of them and calls train: set up, the loop, what follows a run
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("train")

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lm.config import Config
from lm.launch import jobs, logs, main
from lm.launch.directory import Before
from lm.launch.parallel import how_to_go_on, join_torchrun, start_processes
from lm.sweep.progress import run_name
from lm.sweep.study import reporter
from lm.system import locks, signals, store, streams
from lm.system.environment import import_words, launch_rank, started_by_torchrun
from lm.system.text import shell_word

if TYPE_CHECKING:
    from lm.models.base import LanguageModel
    from lm.record.tracker import Tracker
    from lm.setup import TrainingRun

log = logging.getLogger(__name__)


def run_job(job: jobs.Job) -> float:
    """Do one job in its directory and return its best val/bpb, which sweeps minimise.

    The directory of one that is complete stays as it is, to the last byte.
    """
    asked = job.cfg
    if asked.unresolved():
        from lm.optim import horizon  # with torch, once all else is known to be good

        job.cfg = horizon.resolved(asked)
    try:
        score = known_score(job)
        if score is not None:
            return join_torchrun(job, score, train_here) if started_by_torchrun() else score
        with own_directory(job) as lock:
            if asked.unresolved() and launch_rank() == 0:
                for line in horizon.describe(asked, job.cfg):
                    log.info(line)
            return find_or_train(job, lock)
    except signals.Stopped as stop:
        if launch_rank() == 0:
            hint = how_to_go_on(job)
            if job.sweep:
                word = shell_word(f"hydra.sweep.dir={job.sweep}")
                hint = f"the same command with {word} goes on"
            with contextlib.suppress(OSError):  # the terminal may be gone
                streams.print_line(f"stopped by {stop.name}: {hint}", to_stderr=True)
        raise


def known_score(job: jobs.Job) -> float | None:
    """The score of a job that is complete with these very settings; of torchrun's processes rank 0
    knows it. Raises OtherRunError where the directory is not this job's."""
    if launch_rank() > 0:
        return None
    jobs.check(job)
    return jobs.finished(job) if jobs.is_settled(job) else None


@contextlib.contextmanager
def own_directory(job: jobs.Job) -> Iterator[locks.HeldLock]:
    """The directory is this job's alone. Of torchrun's processes rank 0 sees to it.

    A start that fails leaves every byte as it was; an arm of a sweep stays, with its error.
    """
    if launch_rank() > 0:
        yield locks.HeldLock(None)
        return
    before = Before(job.out)
    keep = contextlib.nullcontext() if job.sweep else before.kept_on_failure()
    with store.locked(job.out) as lock, keep, logs.to_file(job.out) as file, logs.error_in(file):
        jobs.claim(job)
        yield lock


def find_or_train(job: jobs.Job, lock: locks.HeldLock) -> float:
    """The score of the job: known already, or trained by torchrun's processes, by some of its own,
    or here."""
    score = None
    if launch_rank() == 0:
        score = jobs.finished(job)  # such as an arm of a sweep named again
    if started_by_torchrun():
        return join_torchrun(job, score, train_here)  # rank 0 tells the others the score
    if score is not None:
        return score
    if job.cfg.train.n_proc > 1:
        return start_processes(job, lock, train_here)
    return train_here(job)


def train_here(job: jobs.Job) -> float:
    """Train the job in this process, which may be one of several that share its batches."""
    with signals.installed():
        report = reporter(job.sweep, job.number)
        name = run_name(job.overrides, job.cfg.model.name)
        return train(job.cfg, job.out, job.group, report, name)["best_val_bpb"]


def train(
    cfg: Config,
    out: Path,
    group: str | None = None,
    report: Callable[[int, float], None] | None = None,
    name: str = "",
) -> dict[str, float]:
    """Train one run into `out`, in this process; return the numbers of its summary.json.

    A run that has a checkpoint there goes on from it. `group` is its group in W&B and `name` its
    name there; `report` hears of the step and val/bpb of each evaluation but the last, and what it
    raises ends the run.
    """
    # torch loads here, and not for --help or an error in the configuration.
    # A signal waits until it has: a library that is loaded in part spoils the end.
    with signals.installed(), signals.deferred():
        from lm import loop, setup
        from lm.record.tracker import open_tracker
        from lm.system import ranks

    run = setup.set_up(cfg, out, _initial_weights(cfg, out))
    tracker = open_tracker(out, cfg, run.state, run.budget.progress, group, name)
    with tracker as track, signals.deferred(), run.beside:
        track.watch(run.model, run.state)
        summary = loop.train(run, track, report)
        if ranks.rank() == 0:
            with ranks.as_single_process():
                after_run(run, track)
    return summary


def after_run(run: "TrainingRun", track: "Tracker") -> None:
    """What follows a complete run: the doctor, the lens if asked for, and what to do next."""
    from lm.check import doctor

    # A sharded model is not whole on any process.
    found = doctor.after_run(run.out, None if run.cfg.train.shard else run.model)
    if found:
        track.note("\n".join(f"- {line}" for line in found))
    if run.cfg.track.lens:
        from lm.lens import page

        written = page.after_run(run.out)
        if written:
            track.page("lens", written)
    if run.cfg.schedule.name == "range":
        from lm.report import lr_range

        log.info(f"done: {lr_range.after_run(run.out)}")
        log.info(f"python -m lm.report {shell_word(str(run.out))} draws the loss against the rate")
        return
    best = f"{run.state.best_val_bpb:.4f} at step {run.state.best_step}"
    reason = run.budget.why_ended_early(run.state)
    if reason:
        best += f", and {reason}"
    word = shell_word(f"run={run.out}")
    log.info(f"done: best val/bpb {best}; python -m lm.sample {import_words()}{word}")


def _initial_weights(cfg: Config, out: Path) -> Callable[["LanguageModel"], None] | None:
    """What fills a new model with the weights of `init_from`; None without it.

    Raises ValueError if they are another model's.
    """
    if not cfg.init_from:
        return None
    from lm.huggingface import weights
    from lm.record import checkpoint

    if not checkpoint.steps(out):
        weights.check_fits(Path(cfg.init_from), cfg.model)
    return lambda model: weights.load(Path(cfg.init_from), model)


if __name__ == "__main__":
    main.main(run_job)
