"""Which parameter is moved by which optimizer, at which rate: checked to be all of them, once each.

optimizers = cfg.optimizer.build(model)      # a list; the loop sets group["lr"] for each group
"""

from collections import defaultdict

import torch
from torch import nn

from lm.models.base import LanguageModel
from lm.optim.muon import Muon
from lm.system import device

for _name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
    device.stay_plain(getattr(torch.optim.Optimizer, _name))


class AdamW(torch.optim.AdamW):
    """PyTorch's, with a `step` that does not import torch._dynamo either."""

    step = torch.no_grad()(getattr(torch.optim.AdamW.step, "__wrapped__", torch.optim.AdamW.step))


def adamw(
    cfg, model: LanguageModel, number: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """AdamW over everything, in float32; weight decay on the matrices, embeddings left out."""
    embeddings = _embeddings(model)
    decayed, others = [], []
    for p in model.parameters():
        (decayed if p.ndim >= 2 and id(p) not in embeddings else others).append(p)
    groups = [
        {"params": decayed, "weight_decay": cfg.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return _checked(model, [_adamw(groups, cfg.lr, cfg)])


def muon_and_adamw(
    cfg, model: LanguageModel, number: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the submodules that `model.hidden` names, AdamW for the rest.

    `number` is the type in which the run multiplies matrices, and so Muon too.
    """
    by_parts: dict[tuple | None, list] = defaultdict(list)
    taken = set()
    known = [name for name, _ in model.named_children()]
    for name in model.hidden:
        if name not in known:
            raise ValueError(
                f"hidden={model.hidden} of {type(model).__name__} names {name}: it has {known}"
            )
        for module in model.get_submodule(name).modules():
            for p in module.parameters(recurse=False):
                if p.ndim == 2 and not isinstance(module, nn.Embedding):
                    parts = getattr(module, "parts", None)
                    by_parts[parts if parts and len(parts) > 1 else None].append(p)
                    taken.add(id(p))
    optimizers: list[torch.optim.Optimizer] = []
    if by_parts:
        groups = [{"params": ps, "parts": parts} for parts, ps in by_parts.items()]
        optimizers.append(Muon(groups, cfg.lr, cfg.momentum, cfg.weight_decay, number))
    rest = [p for p in model.parameters() if id(p) not in taken]
    optimizers.append(_adamw([{"params": rest, "weight_decay": 0.0}], cfg.adamw_lr, cfg))
    return _checked(model, optimizers)


def check_partition(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    """Raise ValueError naming each trainable parameter that no optimizer has, or more than one."""
    times: dict[int, int] = defaultdict(int)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                times[id(p)] += 1
    named = [(name, times[id(p)]) for name, p in model.named_parameters() if p.requires_grad]
    if strays := [name for name, n in named if n == 0]:
        raise ValueError(f"no optimizer moves {', '.join(strays)}: add them to a group")
    if doubles := [name for name, n in named if n > 1]:
        raise ValueError(f"several optimizers move {', '.join(doubles)}: keep each in one group")


def _adamw(groups: list[dict], lr: float, cfg) -> AdamW:
    groups = [group for group in groups if group["params"]]
    # fused: one kernel for all parameters, on a CPU too.
    return AdamW(groups or [{"params": []}], lr, (cfg.beta1, cfg.beta2), cfg.eps, fused=True)


def _embeddings(model: nn.Module) -> set[int]:
    return {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}


def _checked(model: LanguageModel, optimizers: list) -> list[torch.optim.Optimizer]:
    """The optimizers that have something to do, each group with the `base_lr` schedules scale."""
    optimizers = [o for o in optimizers if any(group["params"] for group in o.param_groups)]
    check_partition(model, optimizers)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"] * model.cfg.lr_scale
    return optimizers
