"""A model on several processes: whole on each of them (DDP), or each with a part of it (FSDP2).

    loss = distributed.data_parallel(loss, device)    # its gradients are means over all processes
    distributed.shard(model, device, dtype)           # or: each process keeps its part alone

In a single process data_parallel and everything about tensors change nothing.
"""

import contextlib
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lm.system.errors import ConfigError
from lm.system.ranks import n_proc, rank

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def data_parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """The module whose backward pass leaves the mean gradient of all processes (DDP)."""
    if n_proc() == 1 or is_sharded(module):
        return module
    devices = [torch.cuda.current_device()] if device.type == "cuda" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.6 has no other name for it
        return DistributedDataParallel(
            module, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def gradient_sync(module: nn.Module, now: bool) -> contextlib.AbstractContextManager:
    """Around forward and backward: gradients are exchanged after the last micro-batch only.

    Those of a sharded model are exchanged after each: whole ones, kept until the last, would not
    fit.
    """
    if isinstance(module, DistributedDataParallel) and not now:
        return module.no_sync()
    return contextlib.nullcontext()


def shard(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Shard the model over the processes, on their devices (FSDP2).

    Each keeps its rows of every parameter, and so of its gradient and optimizer state, in float32.
    A pass gathers the blocks one by one, rounded to `dtype`, and frees each after its turn: so all
    processes make it together, validation and samples too. Raises ConfigError for a model without
    weights, and where PyTorch is too old.
    """
    if not any(p.requires_grad for p in model.parameters()):
        cfg: Any = model.cfg
        raise ConfigError(
            f"train.shard=true: model={cfg.name} counts, and has no weights to divide"
        )
    # Half a second, which other runs need not wait for.
    from torch.distributed import fsdp
    from torch.distributed.device_mesh import init_device_mesh

    on_cpu = device.type == "cpu"
    if on_cpu and not hasattr(fsdp.FSDPModule, "set_force_sum_reduction_for_comms"):
        raise ConfigError(
            f"train.shard=true on CPUs takes PyTorch 2.8 or later, and this is {torch.__version__}"
        )
    mesh = init_device_mesh(device.type, (n_proc(),))
    # Not by autocast, whose rounded copies of all blocks would stay until the backward pass; nor
    # are a block's inputs to be rounded, as the angles of its positions are among them.
    policy = fsdp.MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    parts: list[Any] = [*getattr(model, "blocks", ()), model]
    for part in parts:
        fsdp.fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        if on_cpu:  # where PyTorch 2.8 takes gloo's sum for its mean, silently
            part.set_force_sum_reduction_for_comms(True)
    for method in ("nats", "next_token_loss", "start", "step"):  # by which others call the model
        fsdp.register_fsdp_forward_method(model, method)
    with torch.no_grad():  # the first pass makes buffers: made in inference mode they cannot train
        model(torch.zeros((1, 1), dtype=torch.long, device=device))


def is_sharded(model: nn.Module) -> bool:
    """Whether shard() has spread the model's parameters over the processes."""
    return any(_is_dtensor(p) for p in model.parameters())


def _is_dtensor(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether a tensor is sharded; without loading torch.distributed.tensor, which takes time."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, on every process; another tensor as it is."""
    return tensor.full_tensor() if _is_dtensor(tensor) else tensor


def gather_on_rank_0(tensor: Tensor) -> Tensor:
    """All of a sharded tensor on the CPU of rank 0, an empty one elsewhere; another tensor as it
    is."""
    if not _is_dtensor(tensor):
        return tensor
    everything = full_tensor(tensor)
    return everything.cpu() if rank() == 0 else everything.new_empty(0)


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a whole tensor if `like` is sharded; else the tensor as it is."""
    if not _is_dtensor(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def load_state_dict(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """model.load_state_dict of whole tensors, also into a sharded model; RuntimeError names every
    key and shape that differs."""
    current = model.state_dict()
    shards = dict(weights)
    for name, tensor in weights.items():
        if name in current and tensor.shape == current[name].shape:
            shards[name] = shard_like(tensor, current[name])
    model.load_state_dict(shards, strict=True)
