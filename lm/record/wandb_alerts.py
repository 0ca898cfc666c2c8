"""What W&B sends as an alert, by mail or chat, to whoever has asked it to.

alert = wandb_alerts.of_point({"step": 90, "train/spike": 7.1})    # None: nothing to say
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from lm.system.errors import StorageError

SPACING = 1800  # seconds between two alerts of one title: a run may have a hundred spikes


class Alert(NamedTuple):
    """What a person is told."""

    title: str
    text: str
    level: str = "WARN"  # INFO, WARN or ERROR


def of_point(point: Mapping[str, object]) -> Alert | None:
    """What a point of the curves says that cannot wait until somebody looks at them."""
    step, loss = point.get("step"), point.get("train/spike")
    if isinstance(loss, (int, float)) and math.isfinite(loss):
        return Alert("the loss jumps", f"to {loss:.3f} at step {step}")
    if point.get("train/rollbacks"):
        text = f"after numbers that are not finite; it goes on from step {step} with other batches"
        return Alert("training went back to a checkpoint", text)
    return None


def of_error(error: BaseException | None) -> Alert | None:
    """Why a run ended, where a person has to do something about it."""
    if isinstance(error, ArithmeticError):
        return Alert("training diverged", str(error), "ERROR")
    if isinstance(error, StorageError):
        return Alert("the disk refused the last checkpoint", str(error), "ERROR")
    return None
