"""The model under test, made anew for each check, and how a check says that it fails."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lm.config import Config
from lm.models.base import LanguageModel
from lm.system import seeds


class Broken(Exception):
    """A promise that the model does not keep."""


class Skip(Exception):
    """A check that says nothing about this model."""


@dataclass
class Bench:
    """The settings of a model, from which each check makes a new one."""

    cfg: Config
    vocab_size: int
    device: torch.device
    train: np.ndarray | None = None  # (n,) ids, for models that count

    def model(self, perturbed: bool = False) -> LanguageModel:
        """The model as training would start with it.

        `perturbed` adds noise to all parameters, so that none is zero or tiny.
        """
        torch.manual_seed(seeds.seed(self.cfg.seed, "init"))
        model = self.cfg.model.build(self.vocab_size)
        if not model.trainable and self.train is not None:
            model.fit(self.train)
        if perturbed:
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(torch.randn_like(p) * 0.1)
        return model.to(self.device).eval()

    def ids(self, B: int, T: int, seed: int = 0) -> Tensor:
        """Random token ids (B, T), the same at every call."""
        random = torch.Generator().manual_seed(seeds.seed(seed, "check"))
        return torch.randint(0, self.vocab_size, (B, T), generator=random).to(self.device)

    @property
    def T(self) -> int:
        """A number of positions that takes little time."""
        return min(self.cfg.model.context_len, 24)
