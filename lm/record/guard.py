"""Judge the loss of each step: skipped steps, spikes, and when to give up.

row = guard.judge(state, step, loss, norm, cfg.train)     # what to log at once
"""

import logging
import math
import statistics

from lm.config import TrainConfig
from lm.record.state import TrainState
from lm.system.errors import NonFiniteError

log = logging.getLogger(__name__)
MIN_LOSSES = 20  # before one can stand out among them


def judge(
    state: TrainState, step: int, loss: float, norm: float, cfg: TrainConfig
) -> dict[str, float]:
    """Count one step's loss and gradient norm in `state`; return what is to be logged of it.

    A step with a non-finite number has changed no weight and is skipped. More than cfg.skip of
    them in a row raise NonFiniteError.
    """
    if not math.isfinite(loss + norm):
        state.skipped += 1
        state.bad_in_a_row += 1
        what = f"step {step}: the loss is {loss} and the gradient norm {norm}"
        if state.bad_in_a_row > cfg.skip:
            raise NonFiniteError(f"{what}, the {state.bad_in_a_row}. such step in a row")
        log.warning(f"{what}; this step is skipped ({state.skipped} so far)")
        return {"train/skipped": state.skipped}
    state.bad_in_a_row = 0
    state.losses.append(loss)
    height = spike(state.recent, loss)
    state.recent = [*state.recent, loss][-cfg.spike_window :]
    if not cfg.spike or height <= cfg.spike:
        return {}
    log.warning(f"step {step}: the loss jumps to {loss:.3f}, {height:.0f} deviations up")
    return {"train/spike": loss}


def spike(recent: list[float], loss: float) -> float:
    """How many deviations `loss` lies above the median of the losses before it.

    A deviation is 1.4826 times the median distance from the median: for normally distributed
    losses that is the standard deviation, and single large losses do not move it. It counts as
    1 % of the loss at least, so that not every step of a settled run is a spike.
    """
    if len(recent) < MIN_LOSSES:
        return 0.0
    median = statistics.median(recent)
    deviation = 1.4826 * statistics.median(abs(x - median) for x in recent)
    return (loss - median) / max(deviation, 0.01 * median, 1e-9)
