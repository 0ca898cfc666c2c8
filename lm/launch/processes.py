"""Start the processes ("ranks") of one run on this machine, and find out why they ended.

score = processes.spawn(work, cfg.train, job)
"""

import contextlib
import logging
import multiprocessing
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, MutableSequence
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from typing import ParamSpec, TypeVar

from lm.config import TrainConfig
from lm.system import ranks, signals
from lm.system.errors import LostRankError
from lm.system.ranks import is_lost_rank, joined

P = ParamSpec("P")
T = TypeVar("T")
GRACE = 10.0  # seconds that the other ranks have to end by themselves once one has failed


@dataclass
class Shared:
    """What the ranks report to the process that started them, by rank."""

    pids: MutableSequence[int]
    steps: MutableSequence[int]  # the step that each is at
    errors: "list[SimpleQueue[tuple[float, BaseException]]]"  # what ended each, and when


def spawn(work: Callable[P, T], cfg: TrainConfig, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `work` in cfg.n_proc processes of this machine; return the result of rank 0.

    An error of one rank ends them all and is raised here. Raises LostRankError if a rank was
    killed or did not answer for cfg.dist_timeout seconds. If this process dies, its ranks end.
    """
    # 0.3 s, which a run of one process need not wait for
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    ranks.check_backend(cfg.device, cfg.n_proc)
    context = multiprocessing.get_context("spawn")
    shared = Shared(
        pids=context.Array("q", cfg.n_proc, lock=False),
        steps=context.Array("q", cfg.n_proc, lock=False),
        errors=[context.SimpleQueue() for _ in range(cfg.n_proc)],
    )
    with (
        _signals_restored(shared),
        tempfile.TemporaryDirectory() as logs,
        _stragglers_killed(shared),
    ):
        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=cfg.n_proc,
            run_id=secrets.token_hex(4),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,  # a run goes on when a person, or Slurm, starts it again
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        logging.disable(logging.CRITICAL)  # the launcher reports an error in tens of lines
        try:
            return elastic_launch(launch, _run_rank)(work, cfg, shared, args, kwargs)[0]
        except ChildFailedError as failed:
            exit_codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
            raise _reason(shared, exit_codes) from None
        except SignalException as stop:
            raise _reason(shared, {}, signals.Stopped(stop.sigval)) from None
        finally:
            logging.disable(logging.NOTSET)


# ------------------------------------------------------------------------------- in each rank


def _run_rank(
    work: Callable[..., T],
    cfg: TrainConfig,
    shared: Shared,
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> T:
    """The life of one rank: join the others, work, and report an error before it ends."""
    rank = int(os.environ["RANK"])
    shared.pids[rank] = os.getpid()
    ranks.share_steps(shared.steps)
    if (parent := multiprocessing.parent_process()) is not None:
        ranks.end_with_starter(parent.pid, parent.join)

    def report(error: BaseException) -> None:
        if not isinstance(error, (OSError, ValueError, SystemExit)):
            error.add_note(f"on rank {rank}:\n{traceback.format_exc()}")
        shared.errors[rank].put((time.time(), error))

    try:
        with joined(cfg.device, cfg.dist_timeout, report):
            return work(*args, **kwargs)
    except BaseException:  # reported, and raised again in the process that started this one
        sys.exit(1)


# ------------------------------------------------------------------------ why the ranks ended


def _reason(
    shared: Shared, exit_codes: dict[int, int], stop: signals.Stopped | None = None
) -> BaseException:
    """Why the ranks ended: the first error of one of them, else `stop`, else which were lost.

    A lost rank reported nothing; the others reported that they had waited for it.
    """
    reports = {}
    for rank, queue in enumerate(shared.errors):
        if not queue.empty():
            reports[rank] = queue.get()
    waited = {rank: error for rank, (_, error) in reports.items() if is_lost_rank(error)}
    own = [report for rank, report in reports.items() if rank not in waited]
    if own:
        return min(own, key=lambda report: report[0])[1]
    if stop is not None:
        return stop
    timed_out = any("timed out" in str(error).lower() for error in waited.values())
    lost = []
    for rank in range(len(shared.pids)):
        if rank not in waited:
            fate = _fate(exit_codes.get(rank, 0), timed_out)
            at = f"at step {shared.steps[rank]}"
            lost.append(f"rank {rank} (process {shared.pids[rank]}) {fate} {at}")
    return LostRankError("; ".join(lost) or f"the processes lost each other: {waited}")


def _fate(exit_code: int, timed_out: bool) -> str:
    """What happened to a rank that reported nothing."""
    if exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return "did not answer" if timed_out else "was lost"


# -------------------------------------------------------------------- while the ranks are there


@contextlib.contextmanager
def _stragglers_killed(shared: Shared) -> Iterator[None]:
    """Kill the ranks that are still there GRACE seconds after one has failed: they may hang."""
    done = threading.Event()
    kill = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows this one kills

    def watch() -> None:
        while not done.wait(0.1):
            if all(queue.empty() for queue in shared.errors):
                continue
            if not done.wait(GRACE):
                for pid in filter(None, shared.pids):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, kill)
            return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def _signals_restored(shared: Shared) -> Iterator[None]:
    """Pass SIGUSR1 on to rank 0; at the end undo this handler and those of torch's launcher, which
    passes the other signals on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def pass_on(number: int, _: object) -> None:
        if shared.pids[0]:
            os.kill(shared.pids[0], number)

    if signals.SAVE:
        signal.signal(signals.SAVE, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
