"""What the rules of the doctor read about a run, and the form of what they say."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from torch import Tensor

from lm.data.batches import windows
from lm.models.base import LanguageModel
from lm.record.run import Run
from lm.report.records import Record
from lm.scoring import token_nats

Curve = list[tuple[float, float]]  # (step, value)

TEMPERATURES = [0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 2.0]
MAX_TOKENS = 10_000  # scored of each split: the mean loss is then known to 0.04 nats
MAX_ROWS = 8  # of the batch that shows activations and gradients


@dataclass
class Finding:
    """What one rule says about a run."""

    name: str
    verdict: Literal["ok", "note", "look", "failed"]  # failed: the run cannot be trusted
    detail: str  # the number and its meaning
    advice: str = ""  # what to try


@dataclass
class Evidence:
    """A run's log, its tokens, and the model of one of its checkpoints."""

    run: Run
    record: Record
    which: str  # the checkpoint: best, last or a step
    model: LanguageModel  # of that checkpoint, in evaluation mode
    train: np.ndarray  # (n,) ids of the training split
    val: np.ndarray

    @cached_property
    def batch(self) -> tuple[Tensor, Tensor]:
        """Ids and targets, each (B, T), from the start of the training text."""
        n_rows = min(MAX_ROWS, self.run.cfg.train.batch_size)
        x, y = next(windows(self.train, n_rows, self.model.context_len))
        return x.to(self.model.device), y.to(self.model.device)

    @property
    def n_scored(self) -> int:
        """Tokens at the start of each split that are scored; equally many of both."""
        return min(len(self.train), len(self.val), MAX_TOKENS)

    @property
    def can_score(self) -> bool:
        """Whether the model learns by gradients and the text has a token to predict."""
        return self.model.trainable and self.n_scored > 1

    @cached_property
    def val_nats(self) -> dict[float, float]:
        """Mean loss on new text, in nats a token, at each of TEMPERATURES."""
        return nats_by_temperature(self.model, self.val[: self.n_scored], TEMPERATURES)


def nats_by_temperature(
    model: LanguageModel, ids: np.ndarray, temperatures: list[float]
) -> dict[float, float]:
    """Mean loss on ids (n,), in nats a token, at each temperature."""
    nats = token_nats(model, ids, 0, temperatures).mean(axis=1)
    return dict(zip(temperatures, nats.tolist(), strict=True))
