"""One update of the weights: forward, backward, clip, optimizer.

update = Update(model, optimizers, batches, cfg, device, dtype)
numbers = update.train_on(number, step)     # of a batch: {"loss": ..., "grad_norm": ...}, each ()

Where the loss goes: the loop keeps it in UnreadNumbers, recovery.judge_losses reads it, guard.judge
counts or skips it, and loop.training_point logs the mean of those that counted, and each other
number of the newest step as optim/NAME.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lm.config import Config
from lm.data.batches import Batches
from lm.models.base import LanguageModel
from lm.optim import contract, footprint
from lm.optim.clip import clip_gradients
from lm.optim.groups import skips_by_itself
from lm.system import (
    devices,
    distributed,
    failpoint,
    memory,
    onednn,
    pace,
    parts,
    ranks,
    seeds,
    signals,
)
from lm.system.errors import no_code_for

log = logging.getLogger(__name__)
# Seconds of a run on a CPU above which it is compiled: that takes 25 s and gains a fifth, as
# experiments/benchmarks/training shows.
WORTH_COMPILING = 120.0


class ModelLoss(nn.Module):
    """`model.next_token_loss` as a module, which functional_call can give other weights."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.model.next_token_loss(inputs, targets)


class Loss(nn.Module):
    """Inputs and targets (B, T) -> the batch's mean loss in nats: the function that is
    differentiated, with the model's matrix products in `dtype`."""

    def __init__(self, model: LanguageModel, dtype: torch.dtype) -> None:
        super().__init__()
        self.model_loss = ModelLoss(model)
        self.dtype = dtype
        self.low_precision = model.low_precision
        # A sharded model rounds its weights itself, as it gathers them.
        self.needs_no_cast = dtype == torch.float32 or distributed.is_sharded(model)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        if self.needs_no_cast:
            with onednn.products(self.model_loss, inputs, self.dtype):
                return self.model_loss(inputs, targets)
        if self.low_precision:
            # The optimizer keeps float32 weights; a pass uses them rounded, once. The casts of
            # autocast, at every product and back, would cost more than the products save.
            weights = {name: p.to(self.dtype) for name, p in self.model_loss.named_parameters()}
            return functional_call(self.model_loss, weights, (inputs, targets))
        with devices.autocast(inputs.device, self.dtype):
            return self.model_loss(inputs, targets)


class Update:
    """Trains a model on one batch at a time: the loop calls `train_on(number, step)`.

    `train_on` calls `step(number)`, and again with smaller micro-batches where memory does not
    suffice. Both return the numbers of the step by name, each (): `loss`, in nats a token, and
    `grad_norm`, before it is clipped; if one of these two is non-finite, no weight has changed.

    With `ahead`, on a GPU, the call returns before the GPU has computed them: the CPU runs
    ahead, and whoever reads the numbers waits for them.
    """

    def __init__(
        self,
        model: LanguageModel,
        optimizers: list[torch.optim.Optimizer],
        batches: Batches,
        cfg: Config,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.model = model
        self.optimizers = optimizers
        self.batches = batches
        self.cfg = cfg
        self.device = device
        self.dtype = dtype
        self.loss_fn: nn.Module = Loss(model, dtype)
        # The same, with gradients averaged over the processes; made at the first step.
        self.all_ranks_loss_fn: nn.Module | None = None
        # Only where every optimizer can itself skip a step whose numbers are not finite. Any other
        # must not begin the step before they are known.
        self.ahead = device.type == "cuda" and all(map(skips_by_itself, optimizers))
        self.room = memory.room(device)  # bytes left once the weights are there
        self.micro_batch = 0  # windows that go through the model at a time; 0: all
        self.n_parts = cfg.train.parts  # of a batch, each with a sum of its own; 0: none
        self.weights_changed = False  # whether the step under way has moved any weight

    def step(self, number: int) -> dict[str, Tensor]:
        """One try of the batch of that number, with micro-batches of the size at hand."""
        self.weights_changed = False
        inputs, targets = self.batches[number]
        if self.n_parts:
            loss = self.gradients_in_parts(inputs, targets, number)
        else:
            self.seed_dropout(number, ranks.rank())
            loss = self.gradients(inputs, targets)
        # failpoint.hit returns what it is given: tests break a run at these places.
        loss = failpoint.hit("train.loss", loss, number)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        parameters[0].grad = failpoint.hit("train.grad", parameters[0].grad, number)
        norm = clip_gradients(parameters, self.cfg.train.clip)
        numbers = self.means({"loss": loss, "grad_norm": distributed.full_tensor(norm)})
        finite = (numbers["loss"] + numbers["grad_norm"]).isfinite()
        failpoint.hit("train.before_step")
        for optimizer in self.optimizers:
            if self.ahead:
                # Where this is 1 a fused optimizer of PyTorch's changes nothing, so that the CPU
                # need not wait to read it.
                setattr(optimizer, "found_inf", (~finite).float())  # noqa: B010
            if self.ahead or bool(finite):  # only the second waits for a device
                self.weights_changed = True
                with contract.told(self.cfg.optimizer):
                    optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        failpoint.hit("train.after_step")
        return numbers

    def means(self, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
        """The means of numbers, each (), over the processes, in one exchange.

        Each process then knows of a non-finite number of any of them.
        """
        mean = parts.mean if self.n_parts else ranks.mean
        return dict(zip(numbers, mean(torch.stack([*numbers.values()])), strict=True))

    def seed_dropout(self, number: int, stream: int) -> None:
        """Seed what dropout draws from, PyTorch's own generator, for the batch of that number.

        `stream` is the process, or the part of the batch: each leaves out other numbers. As each
        batch has its own seed, the generator's state needs no saving.
        """
        seed = seeds.seed(self.cfg.seed, f"dropout{stream or ''}", number)
        if self.device.type == "cpu":  # torch.manual_seed looks for all other devices, 0.3 ms long
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def gradients_in_parts(self, inputs: Tensor, targets: Tensor, number: int) -> Tensor:
        """`gradients`, with the same bits on any number of processes: see lm/system/parts.py."""

        def before_part(part: int) -> None:
            signals.poll()
            failpoint.hit("train.forward")
            self.seed_dropout(number, part)

        return parts.gradients(self.loss_fn, self.model, inputs, targets, self.n_parts, before_part)

    def gradients(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Leave the batch's gradients in the parameters; return its mean loss, ()."""
        size = self.micro_batch or len(inputs)
        if self.all_ranks_loss_fn is None:
            self.all_ranks_loss_fn = distributed.data_parallel(self.loss_fn, self.device)
        loss = torch.zeros((), device=self.device)
        passes = list(zip(inputs.split(size), targets.split(size), strict=True))
        for i, (x, y) in enumerate(passes):
            signals.poll()  # no weight has changed yet: the step can be done again
            failpoint.hit("train.forward")
            with distributed.gradient_sync(self.all_ranks_loss_fn, now=i + 1 == len(passes)):
                share = self.all_ranks_loss_fn(x, y) * (len(x) / len(inputs))
                share.backward()
            loss += share.detach()
        return loss

    # ---------------------------------------------------------------------------- memory

    def use_micro_batch(self, found: int) -> None:
        """Take train.micro_batch, or where that is `auto` the size that an earlier start found."""
        requested = self.cfg.train.micro_batch
        self.micro_batch = found if requested == "auto" else requested

    def train_on(self, number: int, step: int) -> dict[str, Tensor]:
        """Update the weights with the batch of that number; the numbers of the step by name.

        Where memory does not suffice, train.micro_batch=auto goes on in halves, and halves of
        these: the same batch and, but for the rounding of sums, the same gradient. `step` is for
        messages.
        """
        while True:
            try:
                return self.step(number)
            except (RuntimeError, MemoryError) as error:
                size = self.micro_batch or self.cfg.train.batch_size
                fixed = self.cfg.train.micro_batch != "auto" or size == 1
                if fixed or self.weights_changed or not devices.is_out_of_memory(error):
                    raise
                log.warning(self.too_large(step))
            # Outside of `except`, which keeps the tensors of the failed step alive.
            self.micro_batch = math.ceil(size / 2)
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def too_large(self, step: int) -> str:
        """What was asked of the memory, and what would be less.

        That is the batch, unless gradients and optimizer state take half of the memory or more.
        """
        size = self.micro_batch or self.cfg.train.batch_size // (self.n_parts or 1)
        less = "a smaller model.context_len"
        can_halve = size > 1
        if self.n_parts:
            can_halve = size % 2 == 0
        if can_halve:
            half = f"train.micro_batch={math.ceil(size / 2)}"
            less = f"train.parts={2 * self.n_parts}" if self.n_parts else half
        model, cfg = self.model, self.cfg
        weights = memory.weights_in(model, 1)
        if 2 * (footprint.n_bytes(model, cfg) - weights) > self.room:
            text = footprint.describe(model, cfg, self.room + weights)
            return f"out of memory at step {step}: {text}" + (f", or {less}" if can_halve else "")
        auto = "" if self.n_parts else ", and train.micro_batch=auto finds what fits"
        return (
            f"out of memory at step {step}: {size} windows of "
            f"model.context_len={self.model.context_len} at a time, of "
            f"train.batch_size={self.cfg.train.batch_size}; {less} takes less{auto}"
        )

    # --------------------------------------------------------------------------- compiling

    def compile(self) -> str:
        """Compile the loss and its gradient, now rather than in the first step; say how it went.

        Without a C++ compiler train.compile=auto goes on uncompiled, others raise ValueError.
        """
        start = time.perf_counter()
        devices.keep_compiled_code()
        uncompiled = self.loss_fn
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(deterministic, warn_only=True)  # the compiler's switch
        torch.compiler.reset()  # of the jobs before: above eight it would silently stop compiling
        options: dict[str, str | int | bool | Callable] = {
            "triton.cudagraphs": self.cfg.train.compile == "graphs",
            # The plain generator: the compiler's own draws number by number, slower than all else.
            "fallback_random": self.device.type == "cpu",
        }
        try:
            # Not dynamic, as all batches are alike.
            self.loss_fn = cast(
                nn.Module, torch.compile(uncompiled, dynamic=False, options=options)
            )
            self._first_pass()
        except Exception as error:  # the compiler's own, and whatever its tools raise
            if devices.is_out_of_memory(error):  # the first step tells of it, or goes on in parts
                return "compiled in the first step, as this batch does not fit"
            self.loss_fn = uncompiled
            self.all_ranks_loss_fn = None
            word = self.cfg.train.compile
            if word != "auto":
                raise ValueError(f"train.compile={word}: {_first_line(error)}") from None
            return f"not compiled ({_first_line(error)})"
        finally:
            self.forget_gradients()
        return f"compiled in {time.perf_counter() - start:.1f} s"

    def _first_pass(self) -> None:
        """Forward and backward as each later pass makes them, on the same shapes."""
        if self.n_parts:
            self.one_pass()
        else:
            self.gradients(*self.batches[0])

    def one_pass(self) -> int:
        """Forward and backward of one micro-batch or part, without the other processes.

        Returns how many such passes a step makes; gradients are left in the parameters.
        """
        inputs, targets = self.batches[0]
        size = self.micro_batch or len(inputs)
        if self.n_parts:
            size = self.cfg.train.batch_size // self.n_parts
        self.loss_fn(inputs[:size], targets[:size]).backward()
        return math.ceil(len(inputs) / size)

    def seconds(self) -> float:
        """Seconds that forward and backward of a batch take uncompiled, on an idle CPU.

        Infinite where memory does not suffice: the first step tells of it, or goes on in parts.
        """
        cfg = self.cfg
        key = [
            asdict(cfg.model), self.model.vocab_size, str(self.dtype), cfg.train.batch_size,
            self.micro_batch, self.n_parts, ranks.n_proc(),
        ]  # fmt: skip
        try:
            return pace.seconds_a_step(key, self.one_pass)
        except (RuntimeError, MemoryError) as error:
            if devices.is_out_of_memory(error):
                return math.inf
            raise
        finally:
            self.forget_gradients()

    def forget_gradients(self) -> None:
        for p in self.model.parameters():
            p.grad = None


class UnreadNumbers:
    """The numbers of steps that a GPU still computes while the CPU begins further steps.

    Not yet run on a GPU. On a CPU it holds one step at a time.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, Tensor]]] = []

    def add(self, step: int, numbers: dict[str, Tensor]) -> None:
        """Keep the numbers of a step by name, each ()."""
        self.steps.append((step, numbers))

    def read(self) -> list[tuple[int, dict[str, float]]]:
        """Each step that was added since, and its numbers by name; this waits for a GPU."""
        if not self.steps:
            return []
        tensors = [tensor for _, numbers in self.steps for tensor in numbers.values()]
        values = iter(torch.stack(tensors).tolist())
        found = [(step, {name: next(values) for name in numbers}) for step, numbers in self.steps]
        self.steps = []
        return found

    def clear(self) -> None:
        self.steps = []


def should_compile(word: str, device: torch.device, seconds: Callable[[], float]) -> bool:
    """Whether a run is compiled under train.compile=`word`.

    `seconds` says how long it would take uncompiled, and is asked only where that matters.
    """
    if word == "auto":
        return device.type == "cuda" or (device.type == "cpu" and seconds() >= WORTH_COMPILING)
    if word in ("on", "off", "graphs"):
        return word != "off"
    raise no_code_for("train.compile", word)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
