"""Bad numbers: steps that are left out, losses that stand out, and when to give up.

row = guard.judge(state, step, loss, norm, cfg.train)     # what to log at once
"""

import logging
import math
import statistics

from lm.config import TrainConfig
from lm.record.state import TrainState
from lm.system.errors import NonFiniteError

log = logging.getLogger(__name__)
ENOUGH = 20  # losses before one can stand out among them


def judge(
    state: TrainState, step: int, loss: float, norm: float, cfg: TrainConfig
) -> dict[str, float]:
    """Count one step's loss and gradient norm in `state`; return what is to be logged of it.

    A step whose numbers are not finite has changed no weight. More than cfg.skip of them in a
    row raise NonFiniteError.
    """
    if not math.isfinite(loss + norm):
        state.skipped += 1
        state.bad_in_a_row += 1
        told = f"step {step}: the loss is {loss} and the gradient norm {norm}"
        if state.bad_in_a_row > cfg.skip:
            raise NonFiniteError(f"{told}, the {state.bad_in_a_row}. such step in a row")
        log.warning(f"{told}; this step is left out ({state.skipped} so far)")
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

    A deviation is 1.4826 times the median distance from the median, which for normal numbers is
    the standard one, but which single large losses do not move. It counts as 1 % of the loss at
    least, so that a run that has settled is not all spikes.
    """
    if len(recent) < ENOUGH:
        return 0.0
    middle = statistics.median(recent)
    deviation = 1.4826 * statistics.median(abs(x - middle) for x in recent)
    return (loss - middle) / max(deviation, 0.01 * middle, 1e-9)
