"""Which parameter is moved by which optimizer, at which rate: checked to be all of them, once each.

optimizers = cfg.optimizer.build(model)      # a list; the loop sets group["lr"] for each group
"""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from lm.config import AdamWConfig, MuonConfig
from lm.models import parametrization
from lm.models.base import LanguageModel
from lm.optim.muon import Muon
from lm.system import devices
from lm.system.errors import ConfigError

ADAMW_SHARE = 0.2  # of Muon's rate, for what is no hidden matrix: experiments/010_default_run
Groups = list[dict[str, Any]]  # as torch.optim takes them
Parts = tuple[int, ...] | None  # row counts of the matrices stacked in one; None: it is one


class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW that does not import torch._dynamo."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        avoid_compiler_import()
        super().__init__(*args, **kwargs)

    @property
    def reads_found_inf(self) -> bool:
        return all(group["fused"] for group in self.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        undecorated = inspect.unwrap(torch.optim.AdamW.step)  # the decorator imports it
        return undecorated(self, closure)


def skips_by_itself(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` changes nothing where the tensor `optimizer.found_inf` is 1.

    An optimizer declares that with the attribute `reads_found_inf = True`. The gradients of any
    other one have to be checked before its step: it would take one with NaN in them.
    """
    return bool(getattr(optimizer, "reads_found_inf", False))


def adamw(
    cfg: AdamWConfig, model: LanguageModel, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, always in float32; weight decay on matrices but embeddings."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decayed = []
    others = []
    for p in model.parameters():
        if p.ndim >= 2 and id(p) not in embeddings:
            decayed.append(p)
        else:
            others.append(p)
    groups: Groups = [
        {"params": decayed, "weight_decay": cfg.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return _checked(model, [_fused_adamw(groups, cfg.lr, cfg, model)])


def muon_and_adamw(
    cfg: MuonConfig, model: LanguageModel, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the submodules that `model.hidden` names, AdamW for the rest.

    `dtype` is the type in which the run multiplies matrices, and so Muon too. Raises ValueError
    where `model.hidden` names something that the model does not have.
    """
    avoid_compiler_import()
    optimizers: list[torch.optim.Optimizer] = []
    groups = _hidden_matrices(model)
    if parametrization.is_on(model.cfg):
        usual = {"lr": cfg.lr, "weight_decay": cfg.weight_decay}
        groups = carried_over(groups, model, parametrization.muon_factors(model), usual)
    if groups:
        optimizers.append(Muon(groups, cfg.lr, cfg.momentum, cfg.weight_decay, dtype))
    taken = {id(p) for group in groups for p in group["params"]}
    rest = [p for p in model.parameters() if id(p) not in taken]
    rate = cfg.adamw_lr or ADAMW_SHARE * cfg.lr
    optimizers.append(_fused_adamw([{"params": rest, "weight_decay": 0.0}], rate, cfg, model))
    return _checked(model, optimizers)


def check_partition(model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Raise ValueError naming each trainable parameter that no optimizer has, or more than one."""
    n_owners: dict[int, int] = defaultdict(int)  # by the parameter's id
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                n_owners[id(p)] += 1
    strays = []
    doubles = []
    for name, p in model.named_parameters():
        if p.requires_grad and n_owners[id(p)] == 0:
            strays.append(name)
        if p.requires_grad and n_owners[id(p)] > 1:
            doubles.append(name)
    if strays:
        raise ValueError(f"no optimizer moves {', '.join(strays)}: add them to a group")
    if doubles:
        raise ValueError(f"several optimizers move {', '.join(doubles)}: keep each in one group")


def avoid_compiler_import() -> None:
    """Mark the methods of every torch optimizer as not for the compiler: asking it imports it."""
    optimizer = torch.optim.Optimizer
    devices.stay_plain(optimizer.add_param_group)
    devices.stay_plain(optimizer.zero_grad)
    devices.stay_plain(optimizer.state_dict)
    devices.stay_plain(optimizer.load_state_dict)


def _hidden_matrices(model: LanguageModel) -> Groups:
    """The matrices inside `model.hidden`, one group for each way of stacking several in one."""
    children = [name for name, _ in model.named_children()]
    stacked = model.stacked_rows()
    by_parts: dict[Parts, list[nn.Parameter]] = defaultdict(list)
    for child in model.hidden:
        if child not in children:
            raise ValueError(
                f"hidden={model.hidden} of {type(model).__name__} names {child}: it has {children}"
            )
        for name, module in model.get_submodule(child).named_modules(prefix=child):
            if isinstance(module, nn.Embedding):
                continue
            matrices = [p for p in module.parameters(recurse=False) if p.ndim == 2]
            if matrices:
                by_parts[stacked.get(name)] += matrices
    return [{"params": params, "parts": parts} for parts, params in by_parts.items()]


def carried_over(
    groups: Groups,
    model: LanguageModel,
    factors: Mapping[str, parametrization.Factors],
    usual: dict[str, float],
) -> Groups:
    """The groups, each divided into those whose parameters have the same factors, with the rate,
    weight decay and eps that follow; `usual` are those of the base.

    ConfigError for a model of one's own that starts with other sizes than the base's.
    """
    if not model.has_scaled_init:
        raise ConfigError(
            f"model.base_width={model.cfg.base_width}: {type(model).__name__} must call "
            "self.scale_init() at the end of its __init__"
        )
    names = {id(p): name for name, p in model.named_parameters()}
    divided = []
    for group in groups:
        alike: dict[parametrization.Factors, dict[str, Any]] = {}
        settings = {**usual, **group}
        for p in group["params"]:
            own = factors[names[id(p)]]
            key = own._replace(init=1.0)  # a group is what moves alike
            if key not in alike:
                changed = {**group, "params": [], "lr": settings["lr"] * own.lr}
                changed["weight_decay"] = settings["weight_decay"] * own.decay
                if "eps" in settings:
                    changed["eps"] = settings["eps"] * own.eps
                alike[key] = changed
            alike[key]["params"].append(p)
        divided += alike.values()
    return divided


def _fused_adamw(
    groups: Groups, lr: float, cfg: AdamWConfig | MuonConfig, model: LanguageModel
) -> AdamW:
    groups = [group for group in groups if group["params"]]
    if parametrization.is_on(model.cfg):
        factors = parametrization.adamw_factors(model)
        groups = carried_over(groups, model, factors, {"lr": lr, "eps": cfg.eps})
    betas = (cfg.beta1, cfg.beta2)
    # fused: one kernel for all parameters, on a CPU too.
    return AdamW(groups or [{"params": []}], lr, betas, cfg.eps, fused=True)


def _checked(
    model: LanguageModel, optimizers: list[torch.optim.Optimizer]
) -> list[torch.optim.Optimizer]:
    """The optimizers that have something to do, each group with the `base_lr` schedules scale."""
    busy = [o for o in optimizers if any(group["params"] for group in o.param_groups)]
    check_partition(model, busy)
    for optimizer in busy:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"] * model.cfg.lr_scale
    return busy
