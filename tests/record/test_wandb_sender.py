"""The threads between a run and W&B's client."""

import sys
from types import SimpleNamespace

import pytest

from lm.record.wandb_sender import SWITCH_INTERVAL, Sender


def test_training_waits_little_for_pythons_lock_while_there_is_a_run_of_wandb():
    """Single steps of 10 ms took up to 0.5 s while the client started."""
    usual = sys.getswitchinterval()
    sender = Sender(lambda: None, lambda: None)
    try:
        assert abs(sys.getswitchinterval() - SWITCH_INTERVAL) < 1e-6
    finally:
        assert sender.end(exit_code=0, timeout=60)
    assert sys.getswitchinterval() == usual


@pytest.mark.parametrize("how", ["send", "send_slowly"])
def test_what_the_other_thread_came_in_between_is_sent_again(how, caplog):
    """Once in 17 runs an artifact met a point in the client: "dictionary changed size during
    iteration", and the run had no model in W&B."""
    tried = []

    def upload(run):
        tried.append(run)
        if len(tried) == 1:
            raise RuntimeError("dictionary changed size during iteration")

    run = SimpleNamespace(finish=lambda **_: None)
    sender = Sender(lambda: run, lambda: None)
    words = ("the artifacts",) if how == "send_slowly" else ()
    getattr(sender, how)(*words, upload)
    assert sender.end(0, 10)
    assert tried == [run, run] and not caplog.text


def test_another_error_is_told_and_not_tried_again(caplog):
    tried = []

    def upload(run):
        tried.append(run)
        raise RuntimeError("no disk")

    sender = Sender(lambda: SimpleNamespace(finish=lambda **_: None), lambda: None)
    sender.send_slowly("the artifacts", upload)
    sender.end(0, 10)
    assert len(tried) == 1 and "did not take the artifacts: no disk" in caplog.text
