"""One update of the weights: forward, backward, clip, optimizer.

update = Update(model, optimizers, batches, cfg, where, number)
loss, norm = update(step).tolist()
"""

import logging
import math
import time

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lm import data, metrics
from lm.config import Config
from lm.models.base import LanguageModel
from lm.system import device, failpoint, onednn, ranks, seeds, signals

log = logging.getLogger(__name__)
WORTH_COMPILING = 1e13  # operations of a run on a CPU that repay the 15 s of compiling


class Loss(nn.Module):
    """Inputs and targets (B, T) -> the batch's mean loss in nats: the function that is
    differentiated, with the model's matrix products in `number`."""

    def __init__(self, model: LanguageModel, number: torch.dtype) -> None:
        super().__init__()
        self.model, self.number = model, number
        self.plain = number == torch.float32 or ranks.is_sharded(model)  # it rounds itself

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if self.plain:
            with onednn.products(self.model, inputs, self.number):
                logits = self.model(inputs)
        elif self.model.low_precision:
            # The optimizer keeps float32 weights; a pass sees them rounded, once. The casts of
            # autocast, at every product and back, would cost more than the products save.
            weights = {name: p.to(self.number) for name, p in self.model.named_parameters()}
            logits = functional_call(self.model, weights, (inputs,))  # (B, T, V)
        else:
            with device.autocast(inputs.device, self.number):
                logits = self.model(inputs)
        return metrics.next_token_loss(logits, targets)


class Update:
    """`update(step)` trains on batch number `step`. It returns the batch's loss in nats a token
    and the gradient's norm before clipping, (2,); if either is not finite, nothing has changed.

    On a GPU it only starts all that (`ahead`): whoever reads the two numbers waits for them.
    """

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
        self.cfg, self.where = cfg, where
        self.loss: nn.Module = Loss(model, number)
        self.ranks: nn.Module | None = None  # `loss`, with the gradients of all processes
        self.ahead = where.type == "cuda"
        self.micro_batch = 0  # windows that go through the model at a time; 0: all
        self.changed = False  # whether the weights of this step are no longer those of the last

    def __call__(self, step: int) -> Tensor:
        # Dropout draws from PyTorch's own generator: seeded by step, it needs no saving.
        # On a CPU its own is asked for: torch.manual_seed looks for all other devices, 0.3 ms long.
        draw = torch.default_generator if self.where.type == "cpu" else torch
        draw.manual_seed(seeds.seed(self.cfg.seed, f"dropout{ranks.rank() or ''}", step))
        self.changed = False
        loss = failpoint.hit("train.loss", self.gradients(*self.batches[step]), step)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        parameters[0].grad = failpoint.hit("train.grad", parameters[0].grad, step)
        # The logged norm is the raw gradient's, comparable across clipping thresholds.
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.cfg.train.clip or math.inf)
        norm = ranks.whole(norm)
        # Each process then knows of a bad number of any of them.
        numbers = ranks.mean(torch.stack([loss, norm]))
        finite = numbers.sum().isfinite()
        failpoint.hit("train.before_step")
        for optimizer in self.optimizers:
            if self.ahead:
                optimizer.found_inf = (~finite).float()  # it leaves the step out, on the GPU
            if self.ahead or finite:
                self.changed = True
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        failpoint.hit("train.after_step")
        return numbers

    def compile(self) -> str:
        """Compile the loss and its gradient, now rather than in the first step; what to tell of it.

        Without a C++ compiler train.compile=auto goes on uncompiled, others raise ValueError.
        """
        start, plain = time.perf_counter(), self.loss
        exact = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(exact, warn_only=True)  # the compiler's own switch too
        torch.compiler.reset()  # of the jobs before: above eight it would silently stop compiling
        try:
            options = {"triton.cudagraphs": self.cfg.train.compile == "graphs"}
            # The plain generator: the compiler's own draws number by number, slower than all else.
            options["fallback_random"] = self.where.type == "cpu"
            # Not dynamic, as all batches are alike.
            self.loss = torch.compile(plain, dynamic=False, options=options)
            self.gradients(*self.batches[0])
        except Exception as error:  # the compiler's own, and whatever its tools raise
            if device.out_of_memory(error):  # the first step tells of it, or goes on in parts
                return "compiled in the first step, as this batch does not fit"
            self.loss, self.ranks = plain, None
            if (word := self.cfg.train.compile) != "auto":
                raise ValueError(f"train.compile={word}: {_first_line(error)}") from None
            return f"not compiled ({_first_line(error)})"
        finally:
            for p in self.model.parameters():
                p.grad = None
        return f"compiled in {time.perf_counter() - start:.1f} s"

    def gradients(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Leave the batch's gradients in the parameters, micro-batch by micro-batch; its loss."""
        size = self.micro_batch or len(inputs)
        if self.ranks is None:
            self.ranks = ranks.wrap(self.loss, self.where)
        loss = torch.zeros((), device=self.where)
        parts = list(zip(inputs.split(size), targets.split(size), strict=True))
        for i, (x, y) in enumerate(parts):
            signals.poll()  # the weights are those of before: the step can be done again
            failpoint.hit("train.forward")
            with ranks.exchange(self.ranks, now=i + 1 == len(parts)):
                part = self.ranks(x, y) * (len(x) / len(inputs))
                part.backward()
            loss += part.detach()
        return loss


def compiles(word: str, where: torch.device, flops: float) -> bool:
    """Whether a run of so many operations is to be compiled. Depends on settings and machine alone,
    never on the clock, so that a resumed run decides alike: compiled sums round differently."""
    if word != "auto":
        return word != "off"
    return where.type == "cuda" or (where.type == "cpu" and flops >= WORTH_COMPILING)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def set_rates(optimizers: list[torch.optim.Optimizer], scale: float) -> dict[str, float]:
    """Give every parameter group its rate for this step; return them by name, for the log."""
    rates = {}
    for i, optimizer in enumerate(optimizers):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        name = "optim/lr" if i == 0 else f"optim/lr_{type(optimizer).__name__.lower()}"
        rates[name] = optimizer.param_groups[0]["lr"]
    return rates
