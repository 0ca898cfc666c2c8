"""Read tensors from a safetensors file, which holds data and never code."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lm.system.errors import DamagedError


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, on the CPU; DamagedError if it cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None
