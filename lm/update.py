"""One update of the weights: forward, backward, clip, optimizer.

update = Update(model, optimizers, batches, cfg, where, number)
loss, norm = update(step)
"""

import math

import torch

from lm import data, metrics, runtime
from lm.config import Config
from lm.models.base import LanguageModel


class Update:
    """`update(step)` trains on batch number `step`. It returns the batch's loss in nats a token
    and the gradient's norm before clipping; where either is not finite, nothing has changed."""

    def __init__(
        self,
        model: LanguageModel,
        optimizers: list[torch.optim.Optimizer],
        batches: data.Batches,
        cfg: Config,
        where: torch.device,
        number: torch.dtype,
    ) -> None:
        self.model, self.optimizers, self.batches = model, optimizers, batches
        self.cfg, self.where, self.number = cfg, where, number

    def __call__(self, step: int) -> tuple[float, float]:
        # Dropout draws from PyTorch's own generator: seeded by step, it needs no saving.
        torch.manual_seed(runtime.seed(self.cfg.seed, "dropout", step))
        loss = self.gradients(*self.batches[step])
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        # The logged norm is the raw gradient's, comparable across clipping thresholds.
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.cfg.train.clip or math.inf)
        finite = math.isfinite(loss.item() + norm.item())
        for optimizer in self.optimizers:
            if finite:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item(), norm.item()

    def gradients(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Leave the batch's gradients in the parameters, micro-batch by micro-batch; its loss."""
        size = self.cfg.train.micro_batch or len(inputs)
        loss = torch.zeros((), device=self.where)
        for x, y in zip(inputs.split(size), targets.split(size), strict=True):
            x, y = (t.to(self.where, non_blocking=True) for t in (x, y))
            with runtime.autocast(self.where, self.number):
                logits = self.model(x)  # (B, T, V)
            part = metrics.next_token_loss(logits, y) * (len(x) / len(inputs))
            part.backward()
            loss += part.detach()
        return loss


def set_rates(optimizers: list[torch.optim.Optimizer], scale: float) -> dict[str, float]:
    """Give every parameter group its rate for this step; return them by name, for the log."""
    rates = {}
    for i, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        name = "optim/lr" if i == 0 else f"optim/lr_{type(optimizer).__name__.lower()}"
        rates[name] = optimizer.param_groups[0]["lr"]
    return rates
