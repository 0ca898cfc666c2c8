"""Histograms of weights and gradients, gathered during a step until a point is sent to W&B."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from lm.record.state import TrainState

N_BINS = 64
Histogram = tuple[np.ndarray, np.ndarray]  # counts (N_BINS,) and the edges of the bins


class Histograms:
    """The histograms of one step, by name; a later micro-batch replaces the gradients' ones."""

    def __init__(self) -> None:
        self.by_name: dict[str, Histogram] = {}
        self.step = 0
        self.tokens = 0

    def add(self, name: str, parameter: Tensor, state: TrainState) -> None:
        """Gather the histograms of a parameter and its gradient; both are only read."""
        self.step = state.step
        self.tokens = state.tokens
        if parameter.grad is not None:
            self.by_name[f"gradients/{name}"] = histogram(parameter.grad)
        if f"weights/{name}" not in self.by_name:  # the same in all micro-batches
            self.by_name[f"weights/{name}"] = histogram(parameter)

    def take(self) -> dict[str, object]:
        """What was gathered, as a point under its own step; nothing is left."""
        point: dict[str, object] = {**self.by_name, "step": self.step, "tokens": self.tokens}
        self.by_name = {}
        return point


def histogram(values: Tensor) -> Histogram:
    """The histogram of a tensor's finite values."""
    numbers = values.detach().float().cpu().numpy().ravel()
    return np.histogram(numbers[np.isfinite(numbers)], bins=N_BINS)


def for_wandb(point: Mapping[str, object]) -> dict[str, object]:
    """A point as wandb.Run.log takes it, with each histogram as one of W&B's."""
    import wandb

    return {
        key: wandb.Histogram(np_histogram=value) if isinstance(value, tuple) else value
        for key, value in point.items()
    }
