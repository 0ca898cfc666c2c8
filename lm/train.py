"""Train one run, an experiment or a sweep.

python -m lm.train model=gru tokenizer=char train.steps=500
python -m lm.train -m optimizer.lr=1e-3,3e-3 seed=0,1,2
python -m lm.train resume=latest train.steps=3000
torchrun --nproc-per-node 2 -m lm.train         # or train.n_proc=2: a process for each GPU
"""

import contextlib
import sys

from lm import cli, jobs, launch, signals, store
from lm.sweep import tuner


def run(job: jobs.Job) -> float:
    """Train one job in its directory and return its best val/bpb, which sweeps minimise."""
    try:
        if cli.rank() > 0:
            return _with_others(job, None)
        with store.alone(job.out), jobs.whole_or_absent(job):
            jobs.claim(job)
            score = jobs.finished(job)  # such as an arm of a sweep named again
            if cli.torchrun():
                return _with_others(job, score)
            if score is not None:
                return score
            return train(job) if job.cfg.train.n_proc == 1 else _in_processes(job)
    except signals.Stopped as stop:
        how = _goes_on(job)
        if job.sweep:
            how = f"the same command with hydra.sweep.dir={job.sweep} goes on"
        if cli.rank() == 0:
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
    from lm import distributed

    try:
        return distributed.spawn(_process, job.cfg.train, job)
    except distributed.LostRankError as error:
        raise distributed.LostRankError(
            f"{error}; {_goes_on(job)} from the last checkpoint"
        ) from None


def _process(job: jobs.Job) -> float:
    if cli.rank() == 0:
        launch.log_to(job.out)
    return train(job)


def _with_others(job: jobs.Job, score: float | None) -> float:
    """The same as one of torchrun's processes: the others hear of the directory from rank 0."""
    from lm import distributed

    try:
        with distributed.joined(job.cfg.train):
            job.out, score = distributed.on_rank_0(lambda: (job.out, score))
            return train(job) if score is None else score
    except RuntimeError as error:
        if not distributed.is_loss(error):
            raise
        raise distributed.LostRankError(
            f"another process of the run, maybe on another machine, was lost or did not answer "
            f"({str(error).splitlines()[0]}); {_goes_on(job)} from the last checkpoint"
        ) from None


def _goes_on(job: jobs.Job) -> str:
    return f"python -m lm.train {cli.imports()}resume={job.out} goes on"


if __name__ == "__main__":
    launch.main(run)
