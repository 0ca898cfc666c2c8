"""Train one run, an experiment or a sweep.

python -m lm.train model=gru tokenizer=char train.steps=500
python -m lm.train -m optimizer.lr=1e-3,3e-3 seed=0,1,2
python -m lm.train resume=latest train.steps=3000
"""

import sys

from lm import launch, store
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
        report = tuner.reporter(job.sweep, job.out)
        return loop.train(job.cfg, job.out, job.group, report)["best_val_bpb"]
    except KeyboardInterrupt:
        print(f"\nstopped: python -m lm.train resume={job.out} goes on", file=sys.stderr)
        raise
    except loop.NonFiniteError as error:
        if job.sweep is not None:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    launch.main(run)
