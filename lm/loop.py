"""The training loop, top to bottom: prepare, then evaluate, sample, save and step until done.

summary = loop.train(cfg, out)
"""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lm import checkpoint, data, pipeline, runtime, store
from lm.check import doctor
from lm.checkpoint import TrainState
from lm.config import Config
from lm.evaluate import evaluate
from lm.export import hf_weights
from lm.generate import generate_text
from lm.lens import page
from lm.models.base import LanguageModel
from lm.track import Tracker
from lm.update import Update, compiles, set_rates

log = logging.getLogger(__name__)


class NonFiniteError(ArithmeticError):
    """The loss or the gradient is not a number; the weights are those before the step."""


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
    runtime.configure(cfg.train.threads, cfg.train.deterministic)
    where = runtime.device(cfg.train.device)
    prepared = pipeline.prepare(cfg)
    tokenizer, lengths = prepared.tokenizer, prepared.tokenizer.token_lengths()
    _same_data(out, prepared)

    torch.manual_seed(runtime.seed(cfg.seed, "init"))
    model: LanguageModel = cfg.model.build(tokenizer.vocab_size).to(where)
    number = runtime.dtype(cfg.train.dtype, where, model.low_precision)
    exact = number if where.type == "cuda" else torch.float32  # what validation is computed in
    optimizers = cfg.optimizer.build(model) if model.trainable else []
    batches = data.Batches(prepared.train, cfg.train.batch_size, model.context_len, cfg.seed)
    budget = Budget.of(cfg, model)
    update = Update(model, optimizers, batches, cfg, where, number)
    state = checkpoint.resume(out, model, optimizers)
    if state is None:
        state = TrainState()
        model.fit(prepared.train)  # counts; nothing for a model that learns by gradient
        if cfg.init_from:
            hf_weights.load(Path(cfg.init_from), model)
    log.info(_describe(cfg, model, where, number, batches, budget))
    if budget.progress(state) < 1 and compiles(
        cfg.train.compile, where, budget.flops(model, batches)
    ):
        log.info(f"{'update':<10} {update.compile()}")

    with Tracker(out, cfg, state, budget.progress, group) as track:
        track.watch(model, state)
        val: dict[str, float] = {}
        spent: list[float] = []  # seconds of the steps since the last logged point
        while True:
            last = budget.progress(state) >= 1
            improved = False
            if budget.due(state, cfg.train.eval_every):
                val = evaluate(model, prepared.val, lengths, exact)
                improved = val["bpb"] < state.best_val_bpb
                if improved:
                    state.best_val_bpb, state.best_step = val["bpb"], state.step
                points = {f"val/{k}": val[k] for k in ("loss", "ppl", "bpb")}
                track.log(state, points | _corpus_facts(prepared))
                if report is not None and not last:
                    report(state.step, val["bpb"])
            if budget.due(state, cfg.train.sample_every):
                track.samples(
                    state, [write_sample(model, tokenizer, p, cfg) for p in cfg.train.prompts]
                )
            if improved or budget.due(state, cfg.train.save_every):
                checkpoint.save(out, model, optimizers, state, cfg.train.keep_last)
            if last:
                summary = _summary(state, val, model, prepared)
                track.finish(summary)
                doctor.after_run(out)
                if cfg.track.lens and (made := page.after_run(out)):
                    track.page("lens", made)
                best = f"{state.best_val_bpb:.4f} at step {state.best_step}"
                log.info(f"done: best val/bpb {best}; python -m lm.sample run={out}")
                return summary
            start = time.perf_counter()
            rates = set_rates(optimizers, cfg.schedule.build(budget.progress(state)))
            loss, norm = update(state.step)
            if not math.isfinite(loss + norm):
                raise NonFiniteError(
                    f"step {state.step}: the loss is {loss} and the gradient norm {norm}; the last "
                    "checkpoint is good. Lower optimizer.lr, or raise schedule.warmup"
                )
            spent.append(time.perf_counter() - start)
            state.seconds += spent[-1]
            state.losses.append(loss)
            if state.step % cfg.train.log_every == 0:
                speed = len(spent) * batches.tokens / sum(spent)
                points = {"optim/grad_norm": norm, "speed/tokens_per_s": round(speed, 1)}
                track.log(state, _points(state, batches) | rates | points)
                state.losses.clear()
                spent.clear()
            state.step += 1
            state.tokens += batches.tokens


def write_sample(model: LanguageModel, tokenizer: Any, prompt: str, cfg: Config) -> dict[str, Any]:
    """One continuation of a prompt, with its settings; the same seed at every step of the run."""
    settings = {"temperature": cfg.train.temperature, "seed": cfg.seed}
    pieces = generate_text(model, tokenizer, prompt, max_tokens=cfg.train.sample_len, **settings)
    return {"prompt": prompt, "text": "".join(pieces), **settings}


def _points(state: TrainState, batches: data.Batches) -> dict[str, float]:
    """The mean loss of the steps since the last point, and the passes over the text so far."""
    seen = (state.step + 1) * batches.batch_size / batches.n_windows
    return {"train/loss": sum(state.losses) / len(state.losses), "epoch": round(seen, 4)}


def _corpus_facts(prepared: pipeline.Prepared) -> dict[str, float]:
    return {f"corpus/{key}": value for key, value in prepared.facts.items() if key == "floor_bpb"}


def _same_data(out: Path, prepared: pipeline.Prepared) -> None:
    """Write the run's own tokenizer and data record, or refuse a run that had others."""
    path = out / "tokenizer.json"
    record = out / "data.json"
    if record.exists():
        before = store.read_json(record)
        for what, old, new in (
            ("tokenizer", before["tokens"]["tokenizer"], prepared.tokenizer.fingerprint),
            ("corpus", before["tokens"]["corpus"], prepared.record["tokens"]["corpus"]),
        ):
            if old != new:
                raise ValueError(
                    f"{out} was trained with another {what} ({old[:12]}, now {new[:12]}): "
                    "restore it, or start a new run"
                )
    prepared.tokenizer.save(path)
    store.atomic_write(out / "code.json", json.dumps(runtime.code_version(), indent=1) + "\n")
    if diff := runtime.code_diff():
        store.atomic_write(out / "code.diff", diff)
    else:
        (out / "code.diff").unlink(missing_ok=True)  # of an earlier start
    store.atomic_write(record, json.dumps(prepared.record, indent=1) + "\n")


def _summary(
    state: TrainState, val: dict[str, float], model: LanguageModel, prepared: pipeline.Prepared
) -> dict[str, Any]:
    return {
        **{f"val/{k}": val[k] for k in ("loss", "ppl", "bpb")},
        "best_val_bpb": state.best_val_bpb,
        "best_step": state.best_step,
        "step": state.step,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 3),
        "n_params": model.n_params(),
        "flops": state.tokens * model.flops_per_token(),
        **_corpus_facts(prepared),
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
