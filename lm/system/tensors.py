"""Read tensors from a safetensors file, which holds data and never code; models without memory."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from lm.system import foreign
from lm.system.errors import DamagedError
from lm.system.interception import Interception


def load_tensors(path: Path, links: bool = False) -> dict[str, Tensor]:
    """All tensors of a file by name, on the CPU; DamagedError if it cannot be read.

    `links`: whether a link to such a file is followed, see lm/system/foreign.py.
    """
    foreign.check(path, links)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None


def load_shapes(path: Path, links: bool = False) -> dict[str, list[int]]:
    """The shape of each tensor of a file by its name, of which no more is read; DamagedError."""
    foreign.check(path, links)
    try:
        with safe_open(path, "pt") as saved:
            return {name: saved.get_slice(name).get_shape() for name in saved.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None


class _SkipInit(Interception):
    """Skips torch.nn.init: to draw on the meta device takes a second, for PyTorch's compiler is
    imported to do it."""

    def call(self, func: Callable, args: tuple, kwargs: dict[str, object]) -> object:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
    """Inside, a model that is made has tensors of the right shapes that take no memory."""
    with torch.device("meta"), _SkipInit():
        yield
