"""What one forward pass of a model did: its steps, attention maps and layer outputs."""

import math
from dataclasses import dataclass, field

from torch import Tensor

Shape = tuple[int, ...]


@dataclass
class Step:
    """One operation: what went in, what came out, what it used and what it cost."""

    path: str  # the module, as in model.get_submodule(path); of a function: the one that calls it
    kind: str  # the module's class, or the function's name
    inputs: list[Shape]
    output: Shape
    params: dict[str, Shape] = field(default_factory=dict)  # by their names in the model
    flops: int = 0  # products and sums of the matrix products in this forward pass
    note: str = ""
    # Numbers in its formula that are neither parameters nor read: eps of a norm, scale of scores.
    constants: dict[str, float] = field(default_factory=dict)
    result: Tensor | None = None  # what came out; pairs for complex numbers
    # What it computes from, without parameters: the number of the step that gave it, or itself.
    reads: list[int | Tensor] = field(default_factory=list)

    @property
    def n_params(self) -> int:
        return sum(math.prod(shape) for shape in self.params.values())


@dataclass
class Attention:
    """One layer's attention: who looked at whom, and what was taken from there."""

    path: str
    weights: Tensor  # (B, H, T, S), each row sums to 1
    values: Tensor | None = None  # (B, H, S, D); None where the model's code hides them
    scores: Tensor | None = None  # (B, H, T, S) before the softmax, -inf where masked
    error: float = 0.0  # the largest difference from what the fused kernel returned


@dataclass
class Trace:
    """All that was recorded of one forward pass."""

    logits: Tensor  # (B, T, V)
    steps: list[Step] = field(default_factory=list)
    attention: list[Attention] = field(default_factory=list)
    # The path and the output (B, T, C) of each layer; the first entry, called "embedding", is what
    # goes into the first layer.
    layers: list[tuple[str, Tensor]] = field(default_factory=list)
    flops: int = 0
