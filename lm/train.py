"""Train one run, an experiment or a sweep.

python -m lm.train model=gru tokenizer=char train.steps=500
python -m lm.train -m optimizer.lr=1e-3,3e-3 seed=0,1,2
python -m lm.train resume=latest train.steps=3000
"""

import sys

from lm import launch, signals, store
from lm.sweep import tuner


def run(job: launch.Job) -> float:
    """Train one job in its directory and return its best val/bpb, which sweeps minimise."""
    with store.alone(job.out):
        return train(job)


def train(job: launch.Job) -> float:
    launch.claim(job)
    if (score := launch.finished(job)) is not None:  # such as an arm of a sweep named again
        return score
    from lm import loop  # torch loads here, not for --help or an error in the configuration

    try:
        with signals.handled():
            report = tuner.reporter(job.sweep, job.out)
            return loop.train(job.cfg, job.out, job.group, report)["best_val_bpb"]
    except signals.Stopped as stop:
        how = f"python -m lm.train resume={job.out} goes on"
        if job.sweep:
            how = f"the same command with hydra.sweep.dir={job.sweep} goes on"
        print(f"stopped by {stop.name}: {how}", file=sys.stderr)
        raise


if __name__ == "__main__":
    launch.main(run)
