"""Data parallel training: n processes, each with its rows of the same global batch.

    python -m lm.train train.n_proc=2               # starts them itself, in every job of a sweep
    torchrun --nproc-per-node 2 -m lm.train         # or torchrun has started them

    with ranks.joined("cpu", 600.0):           # inside, rank() and n_proc() are known
        model = ranks.wrap(model, where)      # its gradients are means over all processes
        ranks.shard(model, where, number)     # or: each process keeps a part of it alone

In a single process all functions are there too, and change nothing.
"""

import contextlib
import datetime
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lm.system import device, signals
from lm.system.errors import ConfigError

DAY = datetime.timedelta(days=1)
_board: MutableSequence[
    int
] = []  # of a process started here: its process ids, then its steps, by rank
_as_single_process = False
_patient: dist.ProcessGroup | None = None  # for waits that may take hours


def rank() -> int:
    return dist.get_rank() if _joined() else 0


def n_proc() -> int:
    return dist.get_world_size() if _joined() else 1


def report_to(board: MutableSequence[int]) -> None:
    """Let `note_step` write into `board`: process ids by rank, then steps by rank."""
    global _board
    _board = board


def note_step(step: int) -> None:
    """Note the step, so that the message about a lost process can name it."""
    if _board:
        _board[n_proc() + rank()] = step


# ------------------------------------------------------------------ between the processes of a run


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
    global _patient
    try:
        _join(device_name, timeout)
        yield
    except BaseException as error:
        if getattr(error, "of_all", False) and n_proc() > 1:
            dist.barrier(_patient)  # rank 0 may still be closing its files: nobody ends before it
        on_error(error)
        raise
    finally:
        signals.together = False
        if dist.is_initialized():
            dist.destroy_process_group()
        _patient = None  # its threads end here, and not at random while the interpreter ends


@contextlib.contextmanager
def as_single_process() -> Iterator[None]:
    """As if there were no other process: for what rank 0 does at the end."""
    global _as_single_process
    _as_single_process = True
    try:
        yield
    finally:
        _as_single_process = False


def _join(device_name: str, timeout: float) -> None:
    global _patient
    name = backend(device_name, int(os.environ["WORLD_SIZE"]))
    if "OMP_NUM_THREADS" not in os.environ:  # each its share of this machine
        share = torch.get_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, share))
    if name != "gloo":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(name, timeout=datetime.timedelta(seconds=timeout))
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
    return not _as_single_process and dist.is_available() and dist.is_initialized()


def backend(device_name: str, n_proc: int) -> str:
    """gloo between CPUs, nccl besides between GPUs; raises ConfigError for too few of them."""
    where = device.device(device_name)
    if where.type not in ("cpu", "cuda"):
        raise ConfigError(f"train.n_proc={n_proc} on {where.type}: give train.device=cpu")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", n_proc))
    if where.type == "cuda" and here > torch.cuda.device_count():
        raise ConfigError(
            f"train.n_proc: {here} processes here need as many GPUs, and there are "
            f"{torch.cuda.device_count()}; train.device=cpu needs none"
        )
    return "gloo" if where.type == "cpu" else "cpu:gloo,cuda:nccl"


# -------------------------------------------------------------------------- starting the processes


def is_loss(error: BaseException) -> bool:
    """Whether an error only says that another process is not there."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in str(error) or "NCCL" in str(error))
    )
