"""The threads between a run and W&B's client."""

import sys

from lm.record.wandb_sender import SWITCH_INTERVAL, Sender


def test_training_waits_little_for_pythons_lock_while_there_is_a_run_of_wandb():
    """Single steps of 10 ms took up to 0.5 s while the client started, and 0.1 to 0.3 s now."""
    usual = sys.getswitchinterval()
    sender = Sender(lambda: None, lambda: None)
    try:
        assert abs(sys.getswitchinterval() - SWITCH_INTERVAL) < 1e-6
    finally:
        assert sender.end(exit_code=0, timeout=60)
    assert sys.getswitchinterval() == usual
