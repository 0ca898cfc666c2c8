"""Read tensors from a safetensors file, which holds data and never code."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from lm.system.errors import DamagedError


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from None
