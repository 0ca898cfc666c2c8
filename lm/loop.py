"""The training loop: evaluate, sample, save and step until the budget is spent.

summary = loop.train(setup.set_up(cfg, out), track)
"""

import contextlib
import copy
import logging
import time
from collections.abc import Callable, Iterator

from lm import config
from lm.generate import generate_text
from lm.optim.advice import steadier
from lm.optim.schedule import set_rates, update_scale
from lm.record import checkpoint, guard
from lm.record.state import TrainState
from lm.record.tracker import Tracker
from lm.scoring import evaluate, pair_accuracy
from lm.setup import TrainingRun
from lm.system import devices, ranks, signals
from lm.system.errors import NonFiniteError, OutOfMemoryError, StorageError

log = logging.getLogger(__name__)
Report = Callable[[int, float], None]  # is told the step and val/bpb of an evaluation
Numbers = dict[str, float]


def train(run: TrainingRun, track: Tracker, report: Report | None = None) -> Numbers:
    """Train until the budget is spent, and return the numbers of summary.json.

    `report` hears of each evaluation but the last; what it raises ends the run. A run that is
    stopped by a signal saves its exact step first. Raises NonFiniteError when rollbacks do not
    help, OutOfMemoryError, and StorageError if the last checkpoint could not be written.
    """
    while True:
        # `recovering` swallows a NonFiniteError that it could mend by a rollback: then once more.
        with recovering(run, track):
            return train_until_done(run, track, report)


def train_until_done(run: TrainingRun, track: Tracker, report: Report | None) -> Numbers:
    """The loop itself; what interrupts it is handled by `recovering`."""
    cfg, state = run.cfg.train, run.state
    val: Numbers = {}
    while True:
        ranks.note_step(state.step)
        signals.poll(ranks.largest)  # all processes stop at the same step
        last = run.progress() >= 1
        previous_best = (state.best_val_bpb, state.best_step)  # in case the save fails
        improved = False
        if run.due(cfg.eval_every):
            val = evaluate_and_log(run, track)
            improved = is_improvement(state, val["bpb"], last)
            if improved:
                state.best_val_bpb = val["bpb"]
                state.best_step = state.step
            if report is not None and not last:
                ranks.on_rank_0(report, state.step, val["bpb"])
        if run.due(cfg.sample_every):
            track.samples(state, [write_sample(run, prompt) for prompt in run.prompts])
        if improved or run.due(cfg.save_every):
            saved = save(run, track)
            if improved and not saved:  # no checkpoint holds these weights
                state.best_val_bpb, state.best_step = previous_best
        elif not state.bad_in_a_row and signals.save_requested():
            save(run, track, scheduled=False)
        if last:
            return finish(run, track, val)
        update_and_log(run, track)


@contextlib.contextmanager
def recovering(run: TrainingRun, track: Tracker) -> Iterator[None]:
    """Roll back after non-finite numbers; save the exact step when a signal stops the run."""
    try:
        yield
    except NonFiniteError as reason:
        roll_back(run, track, reason)
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        raise OutOfMemoryError(run.update.too_large(run.state.step)) from error
    except signals.Stopped as stop:
        log.warning(f"{stop.name} at step {run.state.step}")
        saved = save(run, track, scheduled=False)
        if not saved and run.save_error:
            raise run.save_error from None
        raise


# ------------------------------------------------------------------------ evaluate and sample


def evaluate_and_log(run: TrainingRun, track: Tracker) -> Numbers:
    """Score the whole validation split, and other texts; log loss, perplexity, bits per byte."""
    token_bytes = run.tokenizer.token_lengths()
    val = evaluate(run.model, run.val_ids, token_bytes, run.eval_dtype)
    row = {f"val/{key}": val[key] for key in ("loss", "ppl", "bpb")}
    for name, ids in run.other_texts.items():
        row[f"val_{name}/bpb"] = evaluate(run.model, ids, token_bytes, run.eval_dtype)["bpb"]
    for name, pairs in run.tasks.items():
        row[f"task/{name}"] = pair_accuracy(run.model, run.tokenizer, pairs)
    track.log(run.state, row | run.baselines)
    return val


def is_improvement(state: TrainState, bpb: float, last: bool) -> bool:
    """Whether these weights are the best so far and can be saved: amid skipped steps they cannot,
    unless the run ends here."""
    return bpb < state.best_val_bpb and (last or not state.bad_in_a_row)


def write_sample(run: TrainingRun, prompt: str) -> dict[str, str | float]:
    """One continuation of a prompt, with its settings; the seed is the same at every step."""
    cfg = run.cfg
    pieces = generate_text(
        run.model,
        run.tokenizer,
        prompt,
        max_tokens=cfg.train.sample_len,
        temperature=cfg.train.temperature,
        seed=cfg.seed,
    )
    return {
        "prompt": prompt,
        "text": "".join(pieces),
        "temperature": cfg.train.temperature,
        "seed": cfg.seed,
    }


# ----------------------------------------------------------------------------------- update


def update_and_log(run: TrainingRun, track: Tracker) -> None:
    """One update of the weights, and its line in the log if one is due."""
    cfg, state = run.cfg, run.state
    start = time.perf_counter()
    after = run.budget.progress_after_update(state)
    rates = set_rates(run.optimizers, update_scale(cfg.schedule, run.progress(), after))
    batch_number = state.step + state.skipped_batches
    numbers = run.update.train_on(batch_number, state.step)
    if cfg.train.micro_batch == "auto":
        state.micro_batch = run.update.micro_batch
    run.unread.add(state.step, numbers)
    row: Numbers = {}
    if must_read_losses(run):
        row = judge_losses(run, track)
    seconds = time.perf_counter() - start
    if run.budget.seconds:  # the rates depend on it, so all processes need the same clock
        seconds = ranks.largest(seconds)[0]
    run.step_seconds.append(seconds)
    state.seconds += seconds
    if state.step % cfg.train.log_every == 0:
        row |= training_point(run, rates)
        state.losses.clear()
        run.step_seconds.clear()
    if row:
        track.log(state, row)
    state.step += 1
    state.tokens += run.batches.tokens


def must_read_losses(run: TrainingRun) -> bool:
    """Whether the losses have to be read after this step.

    On a CPU that costs nothing. A GPU works on while the CPU begins further steps, until something
    is to be logged, evaluated or saved.
    """
    cfg, step = run.cfg.train, run.state.step
    if not run.update.ahead or run.budget.seconds or step % cfg.log_every == 0:
        return True
    intervals = (cfg.eval_every, cfg.sample_every, cfg.save_every, run.budget.steps)
    return any(every and (step + 1) % every == 0 for every in intervals)


def judge_losses(run: TrainingRun, track: Tracker) -> Numbers:
    """Count every loss that was not read yet; return what is to be logged of the newest step.

    Raises NonFiniteError after too many skipped steps in a row.
    """
    state = run.state
    row: Numbers = {}
    for own_step, loss, norm in run.unread.read():
        run.grad_norm = norm
        row = guard.judge(state, own_step, loss, norm, run.cfg.train)
        if row and own_step < state.step:  # logged under the step to which it belongs
            then = copy.copy(state)
            then.step = own_step
            then.tokens -= (state.step - own_step) * run.batches.tokens
            track.log(then, row)
            row = {}
    return row


def training_point(run: TrainingRun, rates: Numbers) -> Numbers:
    """Mean loss since the last point, epochs so far, rates, gradient norm and speed."""
    state = run.state
    point: Numbers = {}
    if state.losses:
        point["train/loss"] = sum(state.losses) / len(state.losses)
    point["epoch"] = round(state.step * run.batches.batch_size / run.batches.n_windows, 4)
    point |= rates
    point["optim/grad_norm"] = run.grad_norm
    speed = len(run.step_seconds) * run.batches.tokens / sum(run.step_seconds)
    point["speed/tokens_per_s"] = round(speed, 1)
    if run.peak_flops:
        possible = run.peak_flops * ranks.n_proc()
        point["speed/mfu"] = speed * run.model.flops_per_token() / possible
    return point


# ------------------------------------------------------------------------- save and go back


def save(run: TrainingRun, track: Tracker, scheduled: bool = True) -> bool:
    """Write a checkpoint; return whether it was written.

    A disk that refuses costs a warning, and the run goes on. Only a scheduled checkpoint is one to
    which a rollback returns, since a run that was stopped must end like one that was not. Amid
    skipped steps nothing is saved.
    """
    state = run.state
    if state.bad_in_a_row and run.progress() < 1:
        return False
    judge_losses(run, track)  # a signal may have come while some were unread
    previous_good_step = state.good_step
    if scheduled:
        state.good_step = state.step
    try:
        ranks.on_rank_0(track.sync)
        checkpoint.save(run.out, run.model, run.optimizers, state, run.cfg.train.keep_last)
    except NonFiniteError:  # the rollback goes to the checkpoint before
        state.good_step = previous_good_step
        raise
    except StorageError as error:
        state.good_step = previous_good_step
        run.save_error = error
        kept = checkpoint.steps(run.out)
        last = f"step {kept[-1]} is the last checkpoint" if kept else "there is no checkpoint"
        text = f"{error}; {last}; training goes on"
        log.warning(text)
        track.alert("the disk refuses a checkpoint", text)
        return False
    run.save_error = None
    return True


def roll_back(run: TrainingRun, track: Tracker, reason: NonFiniteError) -> None:
    """Return to the last good checkpoint, and go on from there with the batches that follow.

    Raises NonFiniteError where that was done often enough, or there is no such checkpoint.
    """
    state, cfg = run.state, run.cfg.train
    if state.rollbacks >= cfg.rollbacks or state.good_step not in checkpoint.steps(run.out):
        way_out = steadier(config.flat(run.cfg))
        outcome = f"{state.rollbacks} rollbacks did not help" if state.rollbacks else "it stops"
        kept = (
            "the last checkpoint is good" if checkpoint.steps(run.out) else "there is no checkpoint"
        )
        raise NonFiniteError(
            f"{reason}; {outcome}, and {kept}. {way_out[0].upper()}{way_out[1:]}"
        ) from None
    log.warning(
        f"{reason}: back to the checkpoint of step {state.good_step}, and on with "
        "the batches that follow"
    )
    ranks.on_rank_0(checkpoint.remove_after, run.out, state.good_step)
    good = checkpoint.resume(run.out, run.model, run.optimizers)
    assert good is not None, "a good step has a checkpoint"
    good.skipped_batches = state.skipped_batches + state.step + 1 - good.step
    good.rollbacks = state.rollbacks + 1
    good.skipped = state.skipped
    good.micro_batch = state.micro_batch
    vars(state).update(vars(good))
    run.step_seconds.clear()
    run.unread.clear()
    track.cut_back(state)
    track.log(state, {"train/rollbacks": state.rollbacks, "train/skipped": state.skipped})


def finish(run: TrainingRun, track: Tracker, val: Numbers) -> Numbers:
    """Write summary.json, whose presence says that the run is complete; return its numbers."""
    if run.save_error is not None:
        raise run.save_error
    state = run.state
    summary = {
        "val/loss": val["loss"],
        "val/ppl": val["ppl"],
        "val/bpb": val["bpb"],
        "best_val_bpb": state.best_val_bpb,
        "best_step": state.best_step,
        "step": state.step,
        "tokens": state.tokens,
        "seconds": round(state.seconds, 3),
        "n_params": run.model.n_params(),
        "flops": state.tokens * run.model.flops_per_token(),
    }
    summary |= run.baselines
    ranks.on_rank_0(track.finish, summary)
    return summary
