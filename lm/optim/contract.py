"""The contract of an optimizer and of a schedule, ours or one's own: one line where it is broken.

    optimizers = contract.build_optimizers(cfg.optimizer, model, dtype)     # a list
    contract.check_schedule(cfg.schedule)

What `builds` names is called for an optimizer as f(cfg, model) or f(cfg, model, dtype). It gives a
torch.optim.Optimizer, or a list of them that move every parameter once. Each group's `lr` is the
highest rate, which the schedule scales. For a schedule f(cfg, progress) gives the share of that
rate, a number from 0 up, with progress from 0 to 1.
"""

import contextlib
import inspect
import math
import os
import traceback
from collections.abc import Callable, Iterator

import torch
from torch.optim import Optimizer

from lm.config import OptimizerConfig, ScheduleConfig
from lm.models import parametrization
from lm.models.base import LanguageModel
from lm.optim.groups import avoid_compiler_import, check_partition
from lm.settings import Part
from lm.system import devices
from lm.system.errors import ConfigError

PLACES = 20  # of a schedule that are tried


def build_optimizers(
    cfg: OptimizerConfig, model: LanguageModel, dtype: torch.dtype = torch.float32
) -> list[Optimizer]:
    """The optimizers of a configuration, each group with the `base_lr` that schedules scale.

    `dtype` is the type in which the run multiplies matrices. ConfigError where the contract is
    broken; a model without parameters has no optimizer.
    """
    avoid_compiler_import()
    if parametrization.is_on(model.cfg) and not _follows_width(cfg):
        raise ConfigError(
            f"model.base_width={model.cfg.base_width}: no rule is known for the rates of "
            f"optimizer={cfg.name}, and those of adamw and muon are; give model.base_width=0"
        )
    make = cfg.target()
    arguments = (model, dtype) if _takes(make, cfg, model, dtype) else (model,)
    if not _takes(make, cfg, *arguments):
        raise broken(cfg, f"must take (cfg, model), and takes {_signature(make)}")
    with told(cfg):
        made = make(cfg, *arguments)
    optimizers = list(made) if isinstance(made, (list, tuple)) else [made]
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            kind = type(optimizer).__name__
            raise broken(cfg, f"gave a {kind}: give a torch.optim.Optimizer or a list of them")
    busy = [o for o in optimizers if any(group["params"] for group in o.param_groups)]
    for optimizer in busy:
        for group in optimizer.param_groups:
            lr = group.get("lr")
            if not isinstance(lr, (int, float)) or not 0 <= lr < math.inf:
                name = type(optimizer).__name__
                raise broken(cfg, f"gave {name} a group with lr={lr}: give it the highest rate")
            group.setdefault("base_lr", lr * model.cfg.lr_scale)
    try:
        check_partition(model, busy)
    except ValueError as error:
        raise broken(cfg, str(error)) from None
    return busy


def check_schedule(cfg: ScheduleConfig) -> None:
    """ConfigError where the schedule breaks its contract at one of PLACES, or is 0 at all."""
    make = cfg.target()
    if not _takes(make, cfg, 0.5):
        raise broken(cfg, f"must take (cfg, progress), and takes {_signature(make)}")
    highest = 0.0
    for i in range(PLACES + 1):
        progress = i / PLACES
        with told(cfg):
            scale = make(cfg, progress)
        is_number = isinstance(scale, (int, float)) and math.isfinite(scale)
        if not is_number or scale < 0:
            raise broken(cfg, f"gave {scale} at {progress:g} of the run: give a number from 0 up")
        highest = max(highest, scale)
    if highest == 0:
        raise broken(cfg, "gave 0 all through the run: nothing would be learned")


@contextlib.contextmanager
def told(cfg: Part) -> Iterator[None]:
    """Inside, what the code of a part of one's own raises becomes a ConfigError of one line."""
    try:
        yield
    except (ValueError, OSError, MemoryError):
        raise  # said in words already, or of the machine
    except Exception as error:
        # A mistake of ours needs its traceback.
        if cfg.builds.startswith("lm.") or devices.is_out_of_memory(error):
            raise
        text = " ".join(str(error).split())
        kind = type(error).__name__
        raise broken(cfg, f"failed at {_place(error)}: {kind}: {text}") from error


def _place(error: Exception) -> str:
    """The last line of one's own code, and not of PyTorch's, that the error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    library = os.path.dirname(torch.__file__)
    own = [frame for frame in frames if not frame.filename.startswith(library)] or frames
    return f"{own[-1].filename}:{own[-1].lineno}"


def broken(cfg: Part, how: str) -> ConfigError:
    return ConfigError(f"{cfg.group}={cfg.name}: {cfg.builds} {how}")


def _follows_width(cfg: OptimizerConfig) -> bool:
    """What the class that names the optimizer's function says: the rules are of that function.

    So a dataclass that inherits AdamW's settings for a function of its own has to say it itself.
    """
    names_it = next(cls for cls in type(cfg).__mro__ if "builds" in vars(cls))
    return vars(names_it).get("follows_width", False)


def _takes(make: Callable, *arguments: object) -> bool:
    try:
        inspect.signature(make).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # written in C, it does not tell
        return True
    return True


def _signature(make: Callable) -> str:
    return "(" + ", ".join(inspect.signature(make).parameters) + ")"
