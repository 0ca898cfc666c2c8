"""How much memory there is, and how much the weights of a model take of it.

model = memory.skeleton(build)             # its shapes alone
memory.weights_in(model, n_copies=4) > memory.room(device)
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from lm.system.tensors import shapes_alone

M = TypeVar("M", bound=nn.Module)
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def skeleton(build: Callable[[], M]) -> M | None:
    """The model that `build` makes, with shapes and no numbers, which takes no memory.

    None for one that computes with numbers as it is made.
    """
    try:
        with shapes_alone():
            return build()
    except Exception:  # in whatever way it computes
        return None


def room(device: torch.device) -> int:
    """Bytes that this process can have on a device, at most."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_limits_of_cpu(), default=sys.maxsize)


def _limits_of_cpu() -> Iterator[int]:
    """What this machine has, the limit of a container, and what `ulimit -v` leaves.

    Nothing on Windows, which is not asked.
    """
    if not hasattr(os, "sysconf"):
        return
    import resource  # not on Windows

    page = os.sysconf("SC_PAGE_SIZE")
    yield os.sysconf("SC_PHYS_PAGES") * page
    for path in map(Path, CGROUPS):
        if path.is_file() and (text := path.read_text(encoding="ascii").strip()).isdecimal():
            yield int(text)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if limit != resource.RLIM_INFINITY and statm.is_file():
        used = int(statm.read_text(encoding="ascii").split()[0]) * page
        yield max(0, limit - used)


def weights_in(model: nn.Module, n_copies: int) -> int:
    """Bytes of `n_copies` of all weights."""
    return n_copies * sum(p.nbytes for p in model.parameters())


def largest(model: nn.Module) -> tuple[str, torch.Size]:
    """Name and shape of the parameter with the most numbers."""
    name, p = max(model.named_parameters(), key=lambda named: named[1].numel())
    return name, p.shape


def gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
