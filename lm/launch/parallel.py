"""One job in several processes: started here for train.n_proc, or joined as one of torchrun's.

score = parallel.start_processes(job, train_here)
"""

from collections.abc import Callable

from lm.launch import logs
from lm.launch.jobs import Job
from lm.system.environment import import_words, launch_rank
from lm.system.errors import LostRankError
from lm.system.locks import HeldLock
from lm.system.text import shell_word

Work = Callable[[Job], float]  # trains a job in this process; returns its score


def start_processes(job: Job, lock: HeldLock, work: Work) -> float:
    """The score of a job that train.n_proc processes of this machine work on together.

    torch's elastic launcher starts them, and each holds the lock of the run directory. Raises
    LostRankError if one was killed or is silent.
    """
    from lm.launch import processes

    try:
        return processes.spawn(_work_with_log, job.cfg.train, job, lock, work)
    except LostRankError as error:
        raise LostRankError(f"{error}; {how_to_go_on(job)} from the last checkpoint") from None


def _work_with_log(job: Job, lock: HeldLock, work: Work) -> float:
    if launch_rank() > 0:
        return work(job)
    logs.to_terminal()
    with logs.to_file(job.out):
        return work(job)


def join_torchrun(job: Job, score: float | None, work: Work) -> float:
    """The score of a job on which this process works as one of those that torchrun started.

    Rank 0 tells the others the job's directory, and its score if that is known already. Raises
    LostRankError if another process was lost. If torchrun dies, its processes here end.
    """
    from lm.system import ranks

    ranks.end_with_torchrun()
    try:
        with ranks.joined(job.cfg.train.device, job.cfg.train.dist_timeout):
            job.out, score = ranks.on_rank_0(lambda: (job.out, score))
            if score is not None:
                return score
            return work(job)
    except RuntimeError as error:
        if not ranks.is_lost_rank(error):
            raise
        raise LostRankError(
            f"another process of the run, maybe on another machine, was lost or did not answer "
            f"({str(error).splitlines()[0]}); {how_to_go_on(job)} from the last checkpoint"
        ) from None


def how_to_go_on(job: Job) -> str:
    """The command that continues a run, for messages."""
    return f"python -m lm.train {import_words()}{shell_word(f'resume={job.out}')} goes on"
