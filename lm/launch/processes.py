"""Start the processes of one run on this machine, and tell why they ended.

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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lm.config import TrainConfig
from lm.system import ranks, signals
from lm.system.errors import LostRankError
from lm.system.ranks import is_lost_rank, joined

GRACE = 10.0  # seconds that the others have to end by themselves once a process has failed


def spawn(work: Callable, cfg: TrainConfig, *args: Any) -> Any:
    """What `work(*args)` returns on rank 0 of cfg.n_proc processes of this machine.

    What one of them raises is raised here, and ends them all; LostRankError if one was killed or
    did not answer for cfg.dist_timeout seconds.
    """
    # 0.3 s, which a run of one process need not wait for
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    ranks.check_backend(cfg.device, cfg.n_proc)
    context = multiprocessing.get_context("spawn")
    board = context.Array("q", 2 * cfg.n_proc, lock=False)
    told = [context.SimpleQueue() for _ in range(cfg.n_proc)]
    with _signals_passed_on(board), tempfile.TemporaryDirectory() as logs, _reaper(board, told):
        launch = LaunchConfig(
            *(1, 1, cfg.n_proc),  # one machine at least and at most
            run_id=secrets.token_hex(4),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,  # a run goes on when a person, or Slurm, starts it again
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        logging.disable(logging.CRITICAL)  # the launcher's own account, in tens of lines
        try:
            return elastic_launch(launch, _one)(work, cfg, board, told, *args)[0]
        except ChildFailedError as failed:
            codes = {r: failure.exitcode for r, failure in failed.failures.items()}
            raise _cause(board, told, codes) from None
        except SignalException as stop:
            raise _cause(board, told, {}, signals.Stopped(stop.sigval)) from None
        finally:
            logging.disable(logging.NOTSET)


def _one(work: Callable, cfg: TrainConfig, board: Any, told: list, *args: Any) -> Any:
    """The life of one process: join, work, and tell what ended it before the others notice."""
    me = int(os.environ["RANK"])
    ranks.report_to(board)
    board[me] = os.getpid()

    def tell(error: BaseException) -> None:
        if not isinstance(error, (OSError, ValueError, SystemExit)):
            error.add_note(f"on rank {me}:\n{traceback.format_exc()}")
        told[me].put((time.time(), error))

    try:
        with joined(cfg.device, cfg.dist_timeout, tell):
            return work(*args)
    except BaseException:  # told already, and raised again in the process that started this one
        sys.exit(1)


def _cause(
    board: Sequence[int],
    told: list,
    codes: dict[int, int],
    otherwise: BaseException | None = None,
) -> BaseException:
    """Why the processes ended. A lost one told nothing, and the others that they waited."""
    reports = {r: queue.get() for r, queue in enumerate(told) if not queue.empty()}
    waited = {r: error for r, (_, error) in reports.items() if is_lost_rank(error)}
    if own := [reports[r] for r in reports if r not in waited]:
        return min(own, key=lambda report: report[0])[1]
    if otherwise is not None:
        return otherwise
    n = len(told)
    lines = []
    for r in sorted(set(range(n)) - set(waited)):
        code, why = codes.get(r, 0), "was lost"
        if code < 0:
            why = f"was ended by {signal.Signals(-code).name}"
        elif any("timed out" in str(error).lower() for error in waited.values()):
            why = "did not answer"
        lines.append(f"rank {r} (process {board[r]}) {why} at step {board[n + r]}")
    return LostRankError("; ".join(lines) or f"the processes lost each other: {waited}")


@contextlib.contextmanager
def _reaper(board: Sequence[int], told: list) -> Iterator[None]:
    """Kill what is still there some time after the first process has failed, as it may hang."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            if not all(queue.empty() for queue in told):
                if not done.wait(GRACE):
                    for pid in filter(None, board[: len(told)]):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def _signals_passed_on(board: Sequence[int]) -> Iterator[None]:
    """SIGUSR1 to rank 0; the launcher passes the others on, and its handlers are undone here."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    if signals.SAVE:
        signal.signal(signals.SAVE, lambda number, _: board[0] and os.kill(board[0], number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
