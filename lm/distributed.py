"""Data parallel training: n processes, each with its rows of the same global batch.

    python -m lm.train train.n_proc=2               # starts them itself, in every job of a sweep
    torchrun --nproc-per-node 2 -m lm.train         # or torchrun has started them

    with distributed.joined(cfg.train):             # inside, rank() and n_proc() are known
        model = distributed.wrap(model, where)      # its gradients are means over all processes
        distributed.shard(model, where, number)     # or: each process keeps a part of it alone

In a single process all functions are there too, and change nothing.
"""

import contextlib
import datetime
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
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lm import runtime, signals
from lm.config import ConfigError, TrainConfig

DAY = datetime.timedelta(days=1)
GRACE = 10.0  # seconds that the others have to end by themselves once a process has failed
_board: Sequence[int] = []  # of a process started here: its process ids, then its steps, by rank
_alone = False
_patient: dist.ProcessGroup | None = None  # for waits that may take hours


class LostRankError(ConnectionError):
    """A process of the run was killed, or did not answer."""

    exit_code = 1


def rank() -> int:
    return dist.get_rank() if _joined() else 0


def n_proc() -> int:
    return dist.get_world_size() if _joined() else 1


def at(step: int) -> None:
    """Note the step, so that the message about a lost process can name it."""
    if _board:
        _board[n_proc() + rank()] = step


# ------------------------------------------------------------------ between the processes of a run


@contextlib.contextmanager
def joined(
    cfg: TrainConfig, tell: Callable[[BaseException], None] = lambda error: None
) -> Iterator[None]:
    """Together with the other processes of the run, which RANK, WORLD_SIZE and so on describe.

    `tell` hears of an error while the others still wait, so before what they make of it.
    """
    global _patient
    try:
        _join(cfg)
        yield
    except BaseException as error:
        if getattr(error, "of_all", False) and n_proc() > 1:
            dist.barrier(_patient)  # rank 0 may still be closing its files: nobody ends before it
        tell(error)
        raise
    finally:
        signals.together = False
        if dist.is_initialized():
            dist.destroy_process_group()
        _patient = None  # its threads end here, and not at random while the interpreter ends


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """As if there were no other process: for what rank 0 does at the end."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def _join(cfg: TrainConfig) -> None:
    global _patient
    backend = _backend(cfg)
    if "OMP_NUM_THREADS" not in os.environ:  # each its share of this machine
        share = torch.get_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, share))
    if backend != "gloo":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend, timeout=datetime.timedelta(seconds=cfg.dist_timeout))
    _patient = dist.new_group(timeout=DAY, backend="gloo")
    if rank() > 0:
        logging.getLogger().addHandler(logging.NullHandler())  # rank 0 speaks for all
    signals.together = True


def wrap(model: nn.Module, where: torch.device) -> nn.Module:
    """The model whose backward pass leaves the mean gradient of all processes (DDP)."""
    if n_proc() == 1 or is_sharded(model):
        return model
    devices = [torch.cuda.current_device()] if where.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.6 has no other name for it
        return DistributedDataParallel(
            model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def shard(model: nn.Module, where: torch.device, number: torch.dtype) -> None:
    """Divide the model over the processes, on their devices (FSDP2).

    Each keeps its rows of every parameter, and so of its gradient and optimizer state, in float32.
    A pass gathers the blocks one by one, rounded to `number`, and lets go of each after its turn:
    so all make it together, validation and samples too.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(
            f"train.shard=true: model={model.cfg.name} counts, and has no weights to divide"
        )
    from torch.distributed import fsdp  # half a second, which other runs need not wait for

    if where.type == "cpu" and not hasattr(fsdp.FSDPModule, "set_force_sum_reduction_for_comms"):
        raise ConfigError(
            f"train.shard=true on CPUs takes PyTorch 2.8 or later, and this is {torch.__version__}"
        )
    mesh = dist.init_device_mesh(where.type, (n_proc(),))
    # Not by autocast, whose rounded copies of all blocks would stay until the backward pass; nor
    # are a block's inputs to be rounded, as the angles of its positions are among them.
    rounded = fsdp.MixedPrecisionPolicy(number, torch.float32, cast_forward_inputs=False)
    for part in (*getattr(model, "blocks", ()), model):
        fsdp.fully_shard(part, mesh=mesh, mp_policy=rounded, reshard_after_forward=True)
        if where.type == "cpu":  # where PyTorch 2.8 takes gloo's sum for its mean, silently
            part.set_force_sum_reduction_for_comms(True)
    for way in ("start", "step"):  # that generation takes through the model
        fsdp.register_fsdp_forward_method(model, way)
    with torch.no_grad():  # the first pass makes buffers: made in inference mode they cannot train
        model(torch.zeros((1, 1), dtype=torch.long, device=where))


def is_sharded(model: nn.Module) -> bool:
    return any(hasattr(p, "full_tensor") for p in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that shard() divided, on every process."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def gathered(tensor: Tensor) -> Tensor:
    """All of it on the CPU of rank 0, and nothing elsewhere; one that is not divided as it is."""
    if not hasattr(tensor, "full_tensor"):
        return tensor
    return whole(tensor).cpu() if rank() == 0 else whole(tensor).new_empty(0)


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """What this process keeps of a whole tensor, if `like` is divided; the reverse of whole()."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """load_state_dict of whole tensors, also into a model that is divided."""
    mine = model.state_dict()
    fitting = (k for k in weights if k in mine and weights[k].shape == mine[k].shape)
    parts = {k: part_of(weights[k], mine[k]) for k in fitting}
    model.load_state_dict({**weights, **parts}, strict=True)


def exchange(model: nn.Module, now: bool) -> contextlib.AbstractContextManager:
    """Around forward and backward: gradients are exchanged after the last micro-batch only.

    Those of a divided model after each: whole ones, kept until the last, would not fit.
    """
    waits = isinstance(model, DistributedDataParallel) and not now
    return model.no_sync() if waits else contextlib.nullcontext()


def mean(value: Tensor) -> Tensor:
    """The mean over the processes, the same bits on all of them; `value` is overwritten."""
    return total(value).div_(n_proc()) if n_proc() > 1 else value


def total(value: Tensor) -> Tensor:
    """The sum over the processes; `value` is overwritten."""
    if n_proc() > 1:
        dist.all_reduce(value)
    return value


def largest(*values: float) -> list[float]:
    """Each value as it is where it is largest: how all agree on a flag or a duration."""
    if n_proc() == 1:
        return list(values)
    together = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return together.tolist()


def on_rank_0(work: Callable, *args: Any) -> Any:
    """Do it once, on rank 0; return, or raise, on every rank what came of it there."""
    if n_proc() == 1:
        return work(*args)
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = work(*args)
        except Exception as error:  # whatever it is, it must not leave the others waiting
            answer[1] = error
    dist.broadcast_object_list(answer, group=_patient)
    if answer[1] is not None:
        answer[1].of_all = True
        raise answer[1]
    return answer[0]


@contextlib.contextmanager
def rank_0_first() -> Iterator[None]:
    """Rank 0 does what is inside before the others: what it builds, they find."""
    if rank() > 0:
        dist.barrier(_patient)
    yield
    if rank() == 0 and n_proc() > 1:
        dist.barrier(_patient)


def _joined() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()


def _backend(cfg: TrainConfig) -> str:
    """gloo between CPUs, nccl besides between GPUs; raises ConfigError for too few of them."""
    where = runtime.device(cfg.device)
    if where.type not in ("cpu", "cuda"):
        raise ConfigError(f"train.n_proc={cfg.n_proc} on {where.type}: give train.device=cpu")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", cfg.n_proc))
    if where.type == "cuda" and here > torch.cuda.device_count():
        raise ConfigError(
            f"train.n_proc: {here} processes here need as many GPUs, and there are "
            f"{torch.cuda.device_count()}; train.device=cpu needs none"
        )
    return "gloo" if where.type == "cpu" else "cpu:gloo,cuda:nccl"


# -------------------------------------------------------------------------- starting the processes


def spawn(work: Callable, cfg: TrainConfig, *args: Any) -> Any:
    """What `work(*args)` returns on rank 0 of cfg.n_proc processes of this machine.

    What one of them raises is raised here, and ends them all; LostRankError if one was killed or
    did not answer for cfg.dist_timeout seconds.
    """
    # 0.3 s, which a run of one process need not wait for
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _backend(cfg)
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
    global _board
    me, _board = int(os.environ["RANK"]), board
    board[me] = os.getpid()

    def tell(error: BaseException) -> None:
        if not isinstance(error, (OSError, ValueError, SystemExit)):
            error.add_note(f"on rank {me}:\n{traceback.format_exc()}")
        told[me].put((time.time(), error))

    try:
        with joined(cfg, tell):
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
    waited = {r: error for r, (_, error) in reports.items() if is_loss(error)}
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


def is_loss(error: BaseException) -> bool:
    """Whether an error only says that another process is not there."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in str(error) or "NCCL" in str(error))
    )


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
