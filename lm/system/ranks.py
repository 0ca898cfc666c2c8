"""The processes of one run: which one this is, and what all of them agree on.

    python -m lm.train train.n_proc=2               # starts them itself, in every job of a sweep
    torchrun --nproc-per-node 2 -m lm.train         # or torchrun has started them

    with ranks.joined("cpu", 600.0):                # inside, rank() and n_proc() are known
        loss = ranks.mean(loss)                     # the same bits on all processes

In a single process all functions are there too, and change nothing.
"""

import contextlib
import datetime
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, MutableSequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from lm.system import devices, signals
from lm.system.errors import ConfigError, is_on_all_ranks, mark_on_all_ranks

T = TypeVar("T")
DAY = datetime.timedelta(days=1)
MANY = 16  # processes that any machine can start, if not run at once
_shared_steps: MutableSequence[int] | None = None  # by rank, read by the process that started them
_as_single_process = False
_slow_group: dist.ProcessGroup | None = None  # for waits that may take hours


def rank() -> int:
    """The number of this process among those of the run; 0 speaks for all."""
    return dist.get_rank() if _is_joined() else 0


def n_proc() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if _is_joined() else 1


def _is_joined() -> bool:
    return not _as_single_process and dist.is_available() and dist.is_initialized()


def share_steps(steps: MutableSequence[int]) -> None:
    """Let `note_step` write into `steps`, which has a place for each rank."""
    global _shared_steps
    _shared_steps = steps


def note_step(step: int) -> None:
    """Note the step, so that the message about a lost process can name it."""
    if _shared_steps is not None:
        _shared_steps[rank()] = step


def end_with_starter(pid: int | None, wait: Callable[[], object]) -> None:
    """From now on end this rank at once when the process that started it, `pid`, has ended: `wait`
    returns then.

    Nobody would read what it reports, nor end it if another rank is lost.
    """

    def work() -> None:
        wait()
        if os.environ.get("RANK") == "0":
            with contextlib.suppress(OSError):
                os.write(2, f"error: process {pid}, which started the run, is gone\n".encode())
        os._exit(1)

    threading.Thread(target=work, name="end with the starter", daemon=True).start()


def end_with_torchrun() -> None:
    """From now on end this rank at once when the torchrun that started it has ended."""
    pid = os.getppid()

    def wait() -> None:
        while os.getppid() == pid:  # an orphan has another parent
            time.sleep(0.2)

    end_with_starter(pid, wait)


# ---------------------------------------------------------------------- joining the processes


@contextlib.contextmanager
def joined(
    device_name: str,
    timeout: float,
    on_error: Callable[[BaseException], None] = lambda error: None,
) -> Iterator[None]:
    """Join the processes of this run, which RANK, WORLD_SIZE and so on describe; leave at the end.

    A process that does not answer for `timeout` seconds ends the run. `on_error` receives an error
    while the other processes still wait, that is before they fail because of it.
    """
    global _slow_group
    try:
        _join(device_name, timeout)
        yield
    except BaseException as error:
        if is_on_all_ranks(error) and n_proc() > 1:
            dist.barrier(_slow_group)  # rank 0 may still be closing files: nobody ends before it
        on_error(error)
        raise
    finally:
        signals.several_processes = False
        if dist.is_initialized():
            dist.destroy_process_group()
        _slow_group = None  # its threads end here, and not at random while the interpreter ends


def _join(device_name: str, timeout: float) -> None:
    global _slow_group
    backend = check_backend(device_name, int(os.environ["WORLD_SIZE"]))
    if "OMP_NUM_THREADS" not in os.environ:  # each its share of this machine
        share = torch.get_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, share))
    if backend != "gloo":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=timeout))
    _slow_group = cast(dist.ProcessGroup, dist.new_group(timeout=DAY, backend="gloo"))
    if rank() > 0:
        logging.getLogger().addHandler(logging.NullHandler())  # rank 0 speaks for all
    signals.several_processes = True


def check_backend(device_name: str, n_proc: int) -> str:
    """The backend of n_proc processes: gloo between CPUs, nccl besides between GPUs.

    Raises ConfigError where there are too few GPUs, or the device has no backend.
    """
    device = devices.choose(device_name)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"train.n_proc={n_proc} on {device.type}: give train.device=cpu")
    n_here = int(os.environ.get("LOCAL_WORLD_SIZE", n_proc))
    if device.type == "cpu":
        most = max(MANY, 2 * (os.cpu_count() or 1))
        if n_here > most:
            raise ConfigError(
                f"train.n_proc={n_proc}: this machine has {os.cpu_count()} cores and takes at "
                f"most {most} processes"
            )
        return "gloo"
    if n_here > torch.cuda.device_count():
        raise ConfigError(
            f"train.n_proc: {n_here} processes here need as many GPUs, and there are "
            f"{torch.cuda.device_count()}; train.device=cpu needs none"
        )
    return "cpu:gloo,cuda:nccl"


@contextlib.contextmanager
def as_single_process() -> Iterator[None]:
    """As if there were no other process: for what rank 0 does at the end."""
    global _as_single_process
    _as_single_process = True
    try:
        yield
    finally:
        _as_single_process = False


def is_lost_rank(error: BaseException) -> bool:
    """Whether an error only says that another process is not there."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("gloo" in text or "NCCL" in text)


# --------------------------------------------------------------------- agreeing between them


def mean(value: Tensor) -> Tensor:
    """The mean over the processes, the same bits on all of them; `value` is overwritten."""
    return total(value).div_(n_proc()) if n_proc() > 1 else value


def total(value: Tensor) -> Tensor:
    """The sum over the processes; `value` is overwritten."""
    if n_proc() > 1:
        dist.all_reduce(value)
    return value


def gathered(rows: Tensor) -> Tensor:
    """The rows (k, ...) of each process, one after the other: (n_proc * k, ...) on all of them."""
    if n_proc() == 1:
        return rows
    of_each = [torch.empty_like(rows) for _ in range(n_proc())]
    dist.all_gather(of_each, rows)
    return torch.cat(of_each)


def largest(*values: float) -> list[float]:
    """The largest of each value over the processes: how all agree on a flag or a duration."""
    if n_proc() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()


def on_rank_0(work: Callable[..., T], *args: object) -> T:
    """Call work(*args) on rank 0 alone; return its result, or raise its error, on every rank."""
    if n_proc() == 1:
        return work(*args)
    answer: list[Any] = [None, None]  # the result and the error
    if rank() == 0:
        try:
            answer[0] = work(*args)
        except Exception as error:  # whatever it is, it must not leave the others waiting
            answer[1] = error
    dist.broadcast_object_list(answer, group=_slow_group)
    result, error = answer
    if error is not None:
        mark_on_all_ranks(error)
        raise error
    return result


@contextlib.contextmanager
def rank_0_first() -> Iterator[None]:
    """Rank 0 does what is inside before the others: what it builds, they find."""
    if rank() > 0:
        dist.barrier(_slow_group)
    yield
    if rank() == 0 and n_proc() > 1:
        dist.barrier(_slow_group)
