"""What a run does when something goes wrong: skip, save, go back to a checkpoint, or stop.

with recovery.recovering(run, track):      # a non-finite number, full memory, a signal
    recovery.save(run, track)              # a disk that refuses is told, and the run goes on
"""

import contextlib
import copy
import logging
from collections.abc import Iterator

from lm import config
from lm.optim.advice import steadier
from lm.record import checkpoint, guard
from lm.record.tracker import Tracker
from lm.setup import TrainingRun
from lm.system import devices, ranks, signals
from lm.system.errors import NonFiniteError, OutOfMemoryError, StorageError

log = logging.getLogger(__name__)


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


def judge_losses(run: TrainingRun, track: Tracker) -> dict[str, float]:
    """Count every loss that was not read yet; return what is to be logged of the newest step.

    Raises NonFiniteError after too many skipped steps in a row.
    """
    state = run.state
    row: dict[str, float] = {}
    for own_step, numbers in run.unread.read():
        run.numbers = numbers
        row = guard.judge(state, own_step, numbers["loss"], numbers["grad_norm"], run.cfg.train)
        if row and own_step < state.step:  # logged under the step to which it belongs
            then = copy.copy(state)
            then.step = own_step
            then.tokens -= (state.step - own_step) * run.batches.tokens
            track.log(then, row)
            row = {}
    return row


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
