"""Histograms of weights and gradients, gathered during a step until a point is sent to W&B."""

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
        """What was gathered, as a row for W&B under its own step; nothing is left."""
        import wandb

        row: dict[str, object] = {
            name: wandb.Histogram(np_histogram=found) for name, found in self.by_name.items()
        }
        self.by_name = {}
        return row | {"step": self.step, "tokens": self.tokens}


def histogram(values: Tensor) -> Histogram:
    """The histogram of a tensor's finite values."""
    numbers = values.detach().float().cpu().numpy().ravel()
    return np.histogram(numbers[np.isfinite(numbers)], bins=N_BINS)
