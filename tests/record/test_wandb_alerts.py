"""Only what cannot wait is an alert of W&B."""

from lm.record import wandb_alerts
from lm.system.errors import NonFiniteError, OutOfMemoryError, StorageError

ORDINARY = [
    {"step": 1, "train/loss": 4.0},
    {"step": 1, "val/bpb": 2.0},
    {"step": 1, "train/skipped": 1},  # one step; more of them end in a rollback
    {"step": 1, "train/spike": "nan"},
    {"step": 1, "train/rollbacks": 0},
    {},
]


def test_an_ordinary_point_and_an_ordinary_end_are_none():
    assert [wandb_alerts.of_point(point) for point in ORDINARY] == [None] * len(ORDINARY)
    ends = [None, KeyboardInterrupt(), SystemExit(143), OutOfMemoryError("x")]
    assert [wandb_alerts.of_error(end) for end in ends] == [None] * len(ends)


def test_an_alert_says_what_where_and_how_bad():
    spike = wandb_alerts.of_point({"step": 90, "train/spike": 7.123})
    assert spike == ("the loss jumps", "to 7.123 at step 90", "WARN")
    for error in (NonFiniteError("nan at step 9"), StorageError("no space left")):
        alert = wandb_alerts.of_error(error)
        assert alert is not None and (alert.text, alert.level) == (str(error), "ERROR")
