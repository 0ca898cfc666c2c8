"""The state of optimizers as tensors in a file, and back into optimizers of the same kind.

    tensors, group_sizes = optimizer_state.pack(optimizers)
    optimizer_state.unpack(optimizers, tensors, group_sizes)

A tensor is named OPTIMIZER/PARAMETER/NAME, such as 0/12/exp_avg. Learning rates are not kept:
those of the groups come from the configuration.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from lm.system import distributed

NAMES = {"AdamW": {"step", "exp_avg", "exp_avg_sq"}, "Muon": {"momentum"}}  # of a parameter's state
NEVER_NEGATIVE = {"step", "exp_avg_sq"}
KEY = re.compile(r"([0-9]{1,4})/([0-9]{1,7})/(\w{1,60})")
ParameterState = dict[str, Tensor]


def pack(optimizers: Sequence[Optimizer]) -> tuple[dict[str, Tensor], list[list[int]]]:
    """All state tensors by name, and the number of parameters of each group of each optimizer.

    Sharded tensors are gathered on rank 0, so all processes call this together.
    """
    tensors: dict[str, Tensor] = {}
    for i, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensor = distributed.gather_on_rank_0(torch.as_tensor(value))
                tensors[f"{i}/{parameter}/{name}"] = tensor.contiguous()
    return tensors, [group_sizes(optimizer) for optimizer in optimizers]


def group_sizes(optimizer: Optimizer) -> list[int]:
    """The number of parameters of each group."""
    return [len(group["params"]) for group in optimizer.param_groups]


def unpack(
    optimizers: Sequence[Optimizer], tensors: dict[str, Tensor], saved_sizes: list[list[int]]
) -> None:
    """Fill the optimizers with packed state; ValueError if it is that of other optimizers."""
    sizes = [group_sizes(optimizer) for optimizer in optimizers]
    if sizes != saved_sizes:
        raise ValueError(
            f"the checkpoint's optimizer has parameter groups of {saved_sizes}, this one of "
            f"{sizes}: resume takes the same optimizer and model"
        )
    states: list[dict[int, ParameterState]] = [{} for _ in optimizers]
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"the checkpoint's optimizer state has the name {key[:60]!a}")
        i, parameter, name = int(match[1]), int(match[2]), match[3]
        if i >= len(states):
            raise ValueError(
                f"the checkpoint's optimizer state {key} is that of optimizer {i}, and there are "
                f"{len(states)}"
            )
        states[i].setdefault(parameter, {})[name] = tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        _check_and_shard(optimizer, state)
        param_groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": param_groups})


def _check_and_shard(optimizer: Optimizer, state: dict[int, ParameterState]) -> None:
    """Leave of each tensor the shard of this process; ValueError for names and shapes that the
    optimizer would not have."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # A fused optimizer trusts shapes: it writes as many values as the parameter has. One of the
    # user's own, in Python, may have scalars of any name.
    is_fused = any(group.get("fused") for group in optimizer.param_groups)
    is_strict = is_fused or type(optimizer).__name__ in NAMES
    for i, tensors in state.items():
        expected = NAMES.get(type(optimizer).__name__, tensors.keys())
        if i >= len(parameters) or tensors.keys() != expected:
            raise ValueError(
                f"the checkpoint's optimizer state holds {', '.join(sorted(tensors))[:99]} of "
                f"parameter {i}, and not {', '.join(sorted(expected))[:99]}"
            )
        for name, tensor in tensors.items():
            _check(tensor, name, i, parameters[i], is_strict)
            if tensor.ndim:
                tensors[name] = distributed.shard_like(tensor, parameters[i])


def _check(tensor: Tensor, name: str, i: int, parameter: Tensor, is_strict: bool) -> None:
    """Raise ValueError unless the optimizer could have written this tensor of parameter i.

    If `is_strict`, the step alone is a scalar, and all else has the parameter's shape and dtype.
    """
    is_scalar = name == "step" if is_strict else tensor.ndim == 0
    shape = torch.Size() if is_scalar else parameter.shape
    dtype = torch.float32 if is_scalar else parameter.dtype
    fits = tensor.dtype == dtype if is_strict else tensor.is_floating_point()
    what = f"the checkpoint's optimizer state {name} of parameter {i}"
    if tensor.shape != shape or not fits:
        raise ValueError(f"{what} is {tensor.dtype} {tuple(tensor.shape)}, not {tuple(shape)}")
    if not tensor.isfinite().all() or (name in NEVER_NEGATIVE and (tensor < 0).any()):
        raise ValueError(f"{what} has values that are negative or not finite")
