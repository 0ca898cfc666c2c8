"""Online, offline or off: decided without asking, whatever the environment holds."""

import time

import pytest

from lm.record import wandb_mode
from tests.helpers import timed


@pytest.mark.parametrize(
    ("requested", "environment", "mode"),
    [
        ("off", "online", "off"),
        ("offline", "online", "offline"),
        ("auto", "offline", "offline"),
        ("auto", "dryrun", "offline"),
        ("auto", "disabled", "off"),
        ("auto", "Offline", "offline"),
        ("auto", " DRYRUN\r", "offline"),
        ("auto", "Disabled", "off"),
        ("auto", "of line", "offline"),  # with a warning
        ("auto", "", "offline"),  # there is no key
        ("online", "offline", "offline"),
    ],
)
def test_the_mode_is_decided_without_asking(monkeypatch, requested, environment, mode):
    monkeypatch.setenv("WANDB_MODE", environment)
    assert wandb_mode.wandb_mode(requested) == mode


@timed
def test_without_a_key_the_mode_is_known_in_less_than_a_second(fresh_client):
    import wandb  # noqa: F401  its import takes half a second by itself

    start = time.perf_counter()
    assert wandb_mode.wandb_mode("online") == "offline"
    assert time.perf_counter() - start < 1.0


def test_a_key_is_seen_while_a_run_of_the_user_s_own_is_open(monkeypatch, fresh_client):
    """It said: no API key here, also to all arms of a sweep after one that a server kept open."""
    import wandb

    run = wandb.init(mode="offline", project="mine", settings=wandb.Settings(silent=True))
    assert wandb_mode.key_fault() == "no API key here"
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert "malformed" in wandb_mode.key_fault()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert wandb_mode.key_fault() == ""
    assert wandb.run is run
    run.finish()


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("short", "the API key is malformed (WANDB_API_KEY invalid: API key must have 40+"),
        (f"'{'a' * 40}'", "the API key is malformed (WANDB_API_KEY invalid: API key may only"),
        (" ", "no API key here"),
        (f"{'a' * 40}\r\n", ""),
    ],
)
def test_a_malformed_key_is_told_from_none(monkeypatch, fresh_client, caplog, key, reason):
    monkeypatch.setenv("WANDB_API_KEY", key)
    with caplog.at_level("INFO"):
        assert wandb_mode.wandb_mode("auto") == ("offline" if reason else "online")
    assert reason in caplog.text and ("so offline" in caplog.text) == bool(reason)
    assert key.strip() == "" or key not in caplog.text
