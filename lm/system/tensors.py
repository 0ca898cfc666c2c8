"""Read tensors from a safetensors file, which holds data and never code."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from lm.system import foreign
from lm.system.errors import DamagedError


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
