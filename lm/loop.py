"""The training loop, top to bottom: prepare, then evaluate, sample, save and step until done.

summary = loop.train(cfg, out)
"""

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lm import baselines, data, guard, pipeline
from lm.check import doctor
from lm.config import Config
from lm.evaluate import evaluate
from lm.generate import generate_text, readable
from lm.huggingface import weights as hf_weights
from lm.lens import page
from lm.models.base import LanguageModel
from lm.record import checkpoint, origin
from lm.record.state import TrainState
from lm.record.tracker import Tracker, tracker
from lm.system import device, ranks, seeds, signals
from lm.system.errors import ConfigError, NonFiniteError, OutOfMemoryError, StorageError
from lm.system.processes import import_words
from lm.update import Update, compiles, set_rates

log = logging.getLogger(__name__)


@dataclass
class Budget:
    """How long a run lasts: in steps, tokens, floating-point operations or seconds of training."""

    steps: int
    seconds: float = 0.0

    @classmethod
    def of(cls, cfg: Config, model: LanguageModel) -> "Budget":
        if not model.trainable:
            return cls(0)  # counts need no gradient steps
        per_step = cfg.train.batch_size * model.context_len
        tokens = cfg.train.tokens
        if cfg.train.flops and not (each := model.flops_per_token()):
            raise ValueError("train.flops: this model has no matrix products; give train.tokens")
        if cfg.train.flops:
            tokens = math.ceil(cfg.train.flops / each)
        steps = -(-tokens // per_step) if tokens else cfg.train.steps
        return cls(steps, cfg.train.seconds)

    def flops(self, model: LanguageModel, batches: data.Batches) -> float:
        """Operations of the whole run; for a budget in seconds those of a small CPU."""
        if self.seconds:
            return self.seconds * 2e11
        return self.steps * batches.tokens * model.flops_per_token()

    def progress(self, state: TrainState) -> float:
        """The share of the run that is done, from 0 to 1: what schedules are a function of."""
        if self.seconds:
            return min(1.0, state.seconds / self.seconds)
        return state.step / self.steps if self.steps else 1.0

    def due(self, state: TrainState, every: int) -> bool:
        return self.progress(state) >= 1 or (every > 0 and state.step % every == 0)


def train(
    cfg: Config,
    out: Path,
    group: str | None = None,
    report: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Train one run into `out`; return its summary. Continues from the last checkpoint there.

    `report` is told the step and val/bpb of each evaluation but the last; what it raises ends the
    run.
    """
    run = Training(cfg, out)
    with tracker(out, cfg, run.state, run.budget.progress, group) as track, signals.held():
        track.watch(run.model, run.state)
        while True:
            try:
                return run.to_the_end(track, report)
            except NonFiniteError as reason:
                run.go_back(track, reason)
            except (RuntimeError, MemoryError) as error:
                if not device.out_of_memory(error):
                    raise
                raise OutOfMemoryError(run.too_large()) from error
            except signals.Stopped as stop:
                log.warning(f"{stop.name} at step {run.state.step}")
                if not run.save(track, scheduled=False) and run.unsaved:
                    raise run.unsaved from None
                raise


class Training:
    """A run under way: its parts, and `state`, which says where it stands."""

    def __init__(self, cfg: Config, out: Path) -> None:
        self.cfg, self.out = cfg, out
        device.configure(cfg.train.threads, cfg.train.deterministic)
        where = device.device(cfg.train.device)
        with ranks.rank_0_first():
            self.prepared = pipeline.prepare(cfg)
            self.levels = _levels(self.prepared)
        self.tokenizer = self.prepared.tokenizer
        self.prompts = _prompts(cfg, self.tokenizer)
        ranks.on_rank_0(origin.record_data, out, self.prepared)
        checkpoint.check_newest_fits(out, lambda: cfg.model.build(self.tokenizer.vocab_size))
        torch.manual_seed(seeds.seed(cfg.seed, "init"))
        self.model: LanguageModel = cfg.model.build(self.tokenizer.vocab_size)
        model = self.model
        number = device.dtype(cfg.train.dtype, where, model.low_precision)
        if cfg.train.shard:
            ranks.shard(model, where, number)
        else:
            model.to(where)
        ranks.on_rank_0(origin.record_code, out, where, number, cfg.train.shard)
        self.exact = number if where.type == "cuda" else torch.float32  # for validation
        self.optimizers = cfg.optimizer.build(model, number) if model.trainable else []
        size = cfg.train.batch_size, model.context_len
        which = cfg.seed, ranks.rank(), ranks.n_proc()
        self.batches = data.Batches(self.prepared.train, *size, *which).to(where)
        self.budget = Budget.of(cfg, model)
        self.update = Update(model, self.optimizers, self.batches, cfg, where, number)
        self.peak = device.peak_flops(where)
        self.begun: list[tuple[int, torch.Tensor]] = []  # steps whose losses are still to be read
        self.norm = math.nan  # of the last gradient that was read
        self.spent: list[float] = []  # seconds of the steps since the last logged point
        self.unsaved: StorageError | None = None  # why the last save failed
        state = checkpoint.resume(out, model, self.optimizers)
        if state is None:
            state = TrainState()
            model.fit(self.prepared.train)  # counts; nothing for a model that learns by gradient
            if cfg.init_from:
                hf_weights.load(Path(cfg.init_from), model)
        self.state = state
        self.update.micro_batch = self.micro_batch
        log.info(_describe(cfg, model, where, number, self.batches, self.budget))
        flops = self.budget.flops(model, self.batches)
        to_do = self.budget.progress(state) < 1 and not cfg.train.shard
        if to_do and compiles(cfg.train.compile, where, flops):
            log.info(f"{'update':<10} {self.update.compile()}")

    def to_the_end(self, track: Tracker, report: Callable | None) -> dict[str, Any]:
        """Evaluate, sample, save and step until done; the run's summary."""
        cfg, state, val = self.cfg.train, self.state, {}
        while True:
            ranks.note_step(state.step)
            signals.poll(ranks.largest)
            last = self.budget.progress(state) >= 1
            improved = False
            before = state.best_val_bpb, state.best_step
            if self.budget.due(state, cfg.eval_every):
                lengths = self.tokenizer.token_lengths()
                val = evaluate(self.model, self.prepared.val, lengths, self.exact)
                improved = val["bpb"] < state.best_val_bpb and (last or not state.bad_in_a_row)
                if improved:
                    state.best_val_bpb, state.best_step = val["bpb"], state.step
                points = {f"val/{k}": val[k] for k in ("loss", "ppl", "bpb")}
                track.log(state, points | self.levels)
                if report is not None and not last:
                    ranks.on_rank_0(report, state.step, val["bpb"])
            if self.budget.due(state, cfg.sample_every):
                model, tokenizer = self.model, self.tokenizer
                texts = [write_sample(model, tokenizer, p, self.cfg) for p in self.prompts]
                track.samples(state, texts)
            if improved or self.budget.due(state, cfg.save_every):
                if not self.save(track) and improved:
                    state.best_val_bpb, state.best_step = before  # what was not saved is not kept
            elif not state.bad_in_a_row and signals.save_asked():
                self.save(track, scheduled=False)
            if last:
                return self.finish(track, val)
            self.step(track)

    def step(self, track: Tracker) -> None:
        """One update of the weights, and its line in the log if one is due."""
        cfg, state = self.cfg, self.state
        start = time.perf_counter()
        rates = set_rates(self.optimizers, cfg.schedule.build(self.budget.progress(state)))
        self.begun.append((state.step, self.update_that_fits()))
        row = self.read_losses(track) if self.must_know() else {}
        self.spent.append(time.perf_counter() - start)
        if self.budget.seconds:  # then the rates depend on it: one clock for all processes
            self.spent[-1] = ranks.largest(self.spent[-1])[0]
        state.seconds += self.spent[-1]
        if state.step % cfg.train.log_every == 0:
            speed = len(self.spent) * self.batches.tokens / sum(self.spent)
            row |= _points(state, self.batches) | rates
            row |= {"optim/grad_norm": self.norm, "speed/tokens_per_s": round(speed, 1)}
            if self.peak:
                most = self.peak * ranks.n_proc()
                row["speed/mfu"] = speed * self.model.flops_per_token() / most
            state.losses.clear()
            self.spent.clear()
        if row:
            track.log(state, row)
        state.step += 1
        state.tokens += self.batches.tokens

    def must_know(self) -> bool:
        """Whether the losses have to be read after this step. On a CPU that costs nothing; a GPU
        works on while the CPU begins further steps, until something is to be logged or saved."""
        cfg, step = self.cfg.train, self.state.step
        if not self.update.ahead or self.budget.seconds or step % cfg.log_every == 0:
            return True
        pauses = cfg.eval_every, cfg.sample_every, cfg.save_every, self.budget.steps
        return any(every and (step + 1) % every == 0 for every in pauses)

    def read_losses(self, track: Tracker) -> dict[str, float]:
        """Judge the steps that were begun; what is to be logged of this one, if among them."""
        begun, self.begun = self.begun, []
        numbers = torch.stack([both for _, both in begun]).tolist() if begun else []
        row: dict[str, float] = {}
        for (step, _), (loss, norm) in zip(begun, numbers, strict=True):
            row = guard.judge(self.state, step, loss, norm, self.cfg.train)
            if row and step < self.state.step:
                then = copy.copy(self.state)
                then.step = step
                then.tokens -= (self.state.step - step) * self.batches.tokens
                track.log(then, row)
                row = {}
        self.norm = numbers[-1][1] if numbers else self.norm
        return row

    def update_that_fits(self) -> torch.Tensor:
        """The update of this step, in smaller parts where train.micro_batch=auto and all is not
        possible: the same batch and, but for the rounding of sums, the same gradient."""
        state = self.state
        while True:
            try:
                return self.update(state.step + state.skipped_batches)
            except (RuntimeError, MemoryError) as error:
                size = self.micro_batch or self.cfg.train.batch_size
                fixed = self.cfg.train.micro_batch != "auto" or size == 1
                if fixed or self.update.changed or not device.out_of_memory(error):
                    raise
                log.warning(self.too_large())
            # Outside of `except`, which holds on to the tensors.
            state.micro_batch = self.update.micro_batch = -(-size // 2)
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    @property
    def micro_batch(self) -> int:
        """Windows per forward pass; 0: all."""
        asked = self.cfg.train.micro_batch
        return self.state.micro_batch if asked == "auto" else asked

    def too_large(self) -> str:
        """What was asked of the memory, and what would be less."""
        cfg, size = self.cfg.train, self.micro_batch or self.cfg.train.batch_size
        less = f"train.micro_batch={-(-size // 2)}" if size > 1 else "a smaller model.context_len"
        return (
            f"out of memory at step {self.state.step}: {size} windows of "
            f"model.context_len={self.model.context_len} at a time, of "
            f"train.batch_size={cfg.batch_size}; {less} takes less, and train.micro_batch=auto "
            "finds what fits"
        )

    def save(self, track: Tracker, scheduled: bool = True) -> bool:
        """Write a checkpoint; a full disk costs a warning, and the run goes on.

        Only a scheduled one is where a rollback returns to, as a run that was stopped must end like
        one that was not. Amid steps that are left out nothing is saved.
        """
        state = self.state
        if state.bad_in_a_row and self.budget.progress(state) < 1:
            return False
        self.read_losses(track)  # a signal came while steps were begun
        good, state.good_step = state.good_step, state.step if scheduled else state.good_step
        try:
            ranks.on_rank_0(track.sync)
            checkpoint.save(self.out, self.model, self.optimizers, state, self.cfg.train.keep_last)
            self.unsaved = None
        except NonFiniteError:  # it goes back to the one before
            state.good_step = good
            raise
        except StorageError as error:
            state.good_step, self.unsaved = good, error
            kept = checkpoint.steps(self.out)
            last = f"step {kept[-1]} is the last checkpoint" if kept else "there is no checkpoint"
            log.warning(f"{error}; {last}; training goes on")
        return self.unsaved is None

    def go_back(self, track: Tracker, reason: NonFiniteError) -> None:
        """Return to the last good checkpoint, and go on from there with the batches that follow."""
        state, cfg = self.state, self.cfg.train
        if state.rollbacks >= cfg.rollbacks or state.good_step not in checkpoint.steps(self.out):
            how = f"{state.rollbacks} rollbacks did not help" if state.rollbacks else "it stops"
            raise NonFiniteError(
                f"{reason}; {how}, and the last checkpoint is good. Lower optimizer.lr, or raise "
                "schedule.warmup"
            ) from None
        log.warning(
            f"{reason}: back to the checkpoint of step {state.good_step}, and on with "
            "the batches that follow"
        )
        ranks.on_rank_0(checkpoint.remove_after, self.out, state.good_step)
        good = checkpoint.resume(self.out, self.model, self.optimizers)
        good.skipped_batches = state.skipped_batches + state.step + 1 - good.step
        good.rollbacks, good.skipped = state.rollbacks + 1, state.skipped
        good.micro_batch = state.micro_batch
        vars(state).update(vars(good))
        self.spent.clear()
        self.begun.clear()
        track.cut_back(state)
        track.log(state, {"train/rollbacks": state.rollbacks, "train/skipped": state.skipped})

    def finish(self, track: Tracker, val: dict[str, float]) -> dict[str, Any]:
        """Close the books of a run that is done."""
        if self.unsaved is not None:
            raise self.unsaved
        summary = _summary(self.state, val, self.model) | self.levels
        ranks.on_rank_0(track.finish, summary)
        if ranks.rank() == 0:
            with ranks.as_single_process():
                self.look_back(track)
        return summary

    def look_back(self, track: Tracker) -> None:
        """What rank 0 has to say about a run that is complete."""
        # A divided model is not whole on any process.
        doctor.after_run(self.out, None if self.cfg.train.shard else self.model)
        if self.cfg.track.lens and (made := page.after_run(self.out)):
            track.page("lens", made)
        best = f"{self.state.best_val_bpb:.4f} at step {self.state.best_step}"
        words = f"{import_words()}run={self.out}"
        log.info(f"done: best val/bpb {best}; python -m lm.sample {words}")


def _prompts(cfg: Config, tokenizer: Any) -> list[str]:
    """What the samples continue; ConfigError where the tokenizer cannot read what the user gave."""
    for prompt in cfg.train.prompts:
        try:
            tokenizer.encode_ordinary(prompt)
        except ValueError as error:
            raise ConfigError(f"train.prompts: of {prompt!r}, {error}") from None
    return cfg.train.prompts or [readable(cfg.corpus.prompt, tokenizer)]


def write_sample(model: LanguageModel, tokenizer: Any, prompt: str, cfg: Config) -> dict[str, Any]:
    """One continuation of a prompt, with its settings; the same seed at every step of the run."""
    settings = {"temperature": cfg.train.temperature, "seed": cfg.seed}
    pieces = generate_text(model, tokenizer, prompt, max_tokens=cfg.train.sample_len, **settings)
    return {"prompt": prompt, "text": "".join(pieces), **settings}


def _points(state: TrainState, batches: data.Batches) -> dict[str, float]:
    """The mean loss of the steps since the last point, and the passes over the text so far."""
    seen = state.step * batches.batch_size / batches.n_windows  # as its tokens: before this step
    loss = {"train/loss": sum(state.losses) / len(state.losses)} if state.losses else {}
    return loss | {"epoch": round(seen, 4)}


def _levels(prepared: pipeline.Prepared) -> dict[str, float]:
    """What to hold val/bpb against: what counting reaches, and the entropy where it is known."""
    levels = baselines.points(Path(prepared.record["folder"]), prepared.tokenizer)
    if "floor_bpb" in prepared.facts:
        levels["corpus/floor_bpb"] = prepared.facts["floor_bpb"]
    return levels


def _summary(state: TrainState, val: dict[str, float], model: LanguageModel) -> dict[str, Any]:
    return {
        **{f"val/{k}": val[k] for k in ("loss", "ppl", "bpb")},
        "best_val_bpb": state.best_val_bpb,
        "best_step": state.best_step,
        "step": state.step,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 3),
        "n_params": model.n_params(),
        "flops": state.tokens * model.flops_per_token(),
    }


def _describe(
    cfg: Config,
    model: LanguageModel,
    where: torch.device,
    number: torch.dtype,
    batches: data.Batches,
    budget: Budget,
) -> str:
    kind = str(number).removeprefix("torch.")
    size = f"{model.n_params():,} parameters"
    line = f"{'model':<10} {cfg.model.name:<12} {size} on {where.type} in {kind}"
    if not model.trainable:
        return line
    if budget.seconds:
        return f"{line}; {budget.seconds:g} s of training"
    epochs = budget.steps * batches.batch_size / batches.n_windows
    return f"{line}; {budget.steps:,} steps of {batches.tokens:,} tokens, {epochs:.1f} epochs"
