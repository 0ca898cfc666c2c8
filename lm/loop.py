"""The training loop: evaluate, sample, save and step until the budget is spent.

summary = loop.train(setup.set_up(cfg, out), track)
"""

import time
from collections.abc import Callable

from lm.generate import generate_text
from lm.optim.schedule import set_rates, update_scale
from lm.record.state import TrainState
from lm.record.tracker import Tracker
from lm.recovery import judge_losses, recovering, save
from lm.scoring import evaluate, pair_accuracy
from lm.setup import TrainingRun
from lm.system import ranks, signals

Report = Callable[[int, float], None]  # is told the step and val/bpb of an evaluation
Numbers = dict[str, float]


def train(run: TrainingRun, track: Tracker, report: Report | None = None) -> Numbers:
    """Train until the budget is spent, and return the numbers of summary.json.

    `report` hears of each evaluation but the last; what it raises ends the run. A run that is
    stopped by a signal saves its exact step first. Raises NonFiniteError when rollbacks do not
    help, OutOfMemoryError, and StorageError if the last checkpoint could not be written.
    """
    while True:
        # After a rollback `recovering` ends without an error, and training starts again from there.
        with recovering(run, track):
            return train_until_done(run, track, report)


def train_until_done(run: TrainingRun, track: Tracker, report: Report | None) -> Numbers:
    """The loop itself; what interrupts it is handled by `recovering`."""
    cfg, state = run.cfg.train, run.state
    val: Numbers = {}
    while True:
        ranks.note_step(state.step)
        signals.poll(ranks.largest)  # all processes stop at the same step
        previous_best = (state.best_val_bpb, state.best_step)  # in case the save fails
        improved = False
        if run.due(cfg.eval_every):
            val = evaluate_and_log(run, track)
            improved = is_improvement(state, val["bpb"], run.progress() >= 1)
            if improved:
                state.best_val_bpb = val["bpb"]
                state.best_step = state.step
            if report is not None and run.progress() < 1:
                ranks.on_rank_0(report, state.step, val["bpb"])
        last = run.progress() >= 1  # after best_step is set, from which train.patience counts
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
        # Fills state.losses and run.numbers, of which training_point makes a point.
        row = judge_losses(run, track)
    seconds = time.perf_counter() - start
    if run.goes_by_clock:  # the rates depend on it, so all processes need the same clock
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
    step = run.state.step
    is_logged = step % run.cfg.train.log_every == 0
    return not run.update.ahead or is_logged or run.may_be_due(step + 1)


def training_point(run: TrainingRun, rates: Numbers) -> Numbers:
    """Mean loss since the last point, epochs so far, rates, the step's other numbers, speed."""
    state = run.state
    point: Numbers = {}
    if state.losses:
        point["train/loss"] = sum(state.losses) / len(state.losses)
    point["epoch"] = round(state.step * run.batches.batch_size / run.batches.n_windows, 4)
    point |= rates
    point |= {f"optim/{name}": value for name, value in run.numbers.items() if name != "loss"}
    speed = len(run.step_seconds) * run.batches.tokens / sum(run.step_seconds)
    point["speed/tokens_per_s"] = round(speed, 1)
    if run.peak_flops:
        possible = run.peak_flops * ranks.n_proc()
        point["speed/mfu"] = speed * run.model.flops_per_token() / possible
    return point


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
