"""Train one run, an experiment or a sweep.

python -m lm.train model=gru tokenizer=char train.steps=500
python -m lm.train -m optimizer.lr=1e-3,3e-3 seed=0,1,2
python -m lm.train resume=latest train.steps=3000
torchrun --nproc-per-node 2 -m lm.train         # or train.n_proc=2: a process for each GPU
"""

import contextlib
import sys

from lm.launch import jobs, main
from lm.sweep import tuner
from lm.system import signals, store
from lm.system.processes import import_words, launch_rank, started_by_torchrun


def run(job: jobs.Job) -> float:
    """Train one job in its directory and return its best val/bpb, which sweeps minimise."""
    try:
        if launch_rank() > 0:
            return _with_others(job, None)
        with store.locked(job.out), jobs.whole_or_absent(job):
            jobs.claim(job)
            score = jobs.finished(job)  # such as an arm of a sweep named again
            if started_by_torchrun():
                return _with_others(job, score)
            if score is not None:
                return score
            return train(job) if job.cfg.train.n_proc == 1 else _in_processes(job)
    except signals.Stopped as stop:
        how = _goes_on(job)
        if job.sweep:
            how = f"the same command with hydra.sweep.dir={job.sweep} goes on"
        if launch_rank() == 0:
            with contextlib.suppress(OSError):  # the terminal may be gone
                print(f"stopped by {stop.name}: {how}", file=sys.stderr)
        raise


def train(job: jobs.Job) -> float:
    """The same in this process, or as one of those that share the batches."""
    with signals.handled(), signals.held():  # a library that is loaded in part spoils the end
        from lm import loop  # torch loads here, not for --help or an error in the configuration

    with signals.handled():
        report = tuner.reporter(job.sweep, job.out)
        return loop.train(job.cfg, job.out, job.group, report)["best_val_bpb"]


def _in_processes(job: jobs.Job) -> float:
    """The same in processes of its own, which any job of a sweep can start."""
    from lm.launch import processes
    from lm.system.errors import LostRankError

    try:
        return processes.spawn(_process, job.cfg.train, job)
    except LostRankError as error:
        raise LostRankError(f"{error}; {_goes_on(job)} from the last checkpoint") from None


def _process(job: jobs.Job) -> float:
    if launch_rank() == 0:
        main.log_to(job.out)
    return train(job)


def _with_others(job: jobs.Job, score: float | None) -> float:
    """The same as one of torchrun's processes: the others hear of the directory from rank 0."""
    from lm.system import ranks
    from lm.system.errors import LostRankError

    try:
        with ranks.joined(job.cfg.train.device, job.cfg.train.dist_timeout):
            job.out, score = ranks.on_rank_0(lambda: (job.out, score))
            return train(job) if score is None else score
    except RuntimeError as error:
        if not ranks.is_loss(error):
            raise
        raise LostRankError(
            f"another process of the run, maybe on another machine, was lost or did not answer "
            f"({str(error).splitlines()[0]}); {_goes_on(job)} from the last checkpoint"
        ) from None


def _goes_on(job: jobs.Job) -> str:
    return f"python -m lm.train {import_words()}resume={job.out} goes on"


if __name__ == "__main__":
    main.main(run)
