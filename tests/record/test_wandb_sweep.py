"""The end of a sweep in W&B: an alert with its ranking, and its best model in the registry."""

import json
import time

import pytest

from lm import config, train
from lm.record import wandb_answer, wandb_registry
from lm.sweep import callback
from lm.system import files
from lm.system.errors import ConfigError
from tests.helpers import TINY_TRANSFORMER, timed


@pytest.fixture
def swept(cfg, tiny, tmp_path, server):
    """swept("track=online", ...): the directory of a sweep of two arms, the second the better."""

    def make(*words: str):
        root = tmp_path / "outputs/sweeps/a/b"
        for number, lr in enumerate(("1e-4", "1e-2")):
            out = root / str(number)
            out.mkdir(parents=True)
            loaded = cfg(*tiny, "model=bigram", f"optimizer.lr={lr}", *words)
            config.save(loaded, out / config.RESOLVED)
            score = train.train(loaded, out, "a-b", name=f"lr={lr}")["best_val_bpb"]
            result = {"overrides": [f"optimizer.lr={lr}"], "status": "ok", "value": score}
            (out / "result.json").write_text(json.dumps(result))
        return root

    return make


@pytest.mark.slow
def test_the_alert_has_the_ranking_and_the_best_model_is_linked(swept, server, caplog):
    caplog.set_level("INFO")
    root = swept("track=online", "track.registry=models")
    assert server.linked == server.alerts == []  # an arm does not know that it is the best
    best = files.read_json(root / "1/wandb.json")["id"]
    before = dict(server.runs[best].summary)
    callback.conclude(root)
    (title,) = server.alerts
    assert title.startswith("a sweep of 2 arms has ended, best val/bpb ")
    assert server.linked == [f"wandb-registry-models/lm <- model-{best}"]
    assert server.runs[best].state == "finished" and len(server.runs) == 2
    assert server.runs[best].summary["bpb/val"] == before["bpb/val"]
    assert f"python -m lm.dashboard sweep={root}" in caplog.text
    assert not server.unknown


@pytest.mark.slow
def test_the_best_arm_keeps_its_name_notes_and_tags(swept, server, monkeypatch):
    """It got those of the environment, in place of what its settings and the doctor had said."""
    for variable in ("WANDB_NAME", "WANDB_NOTES", "WANDB_TAGS"):
        monkeypatch.setenv(variable, "theirs")
    root = swept("track=online", "track.name=mine", "track.notes=own", "track.tags=[z]")
    run = server.runs[files.read_json(root / "1/wandb.json")["id"]]
    before = {key: run.variables.get(key) for key in ("displayName", "notes", "tags")}
    assert before["displayName"] == "mine lr=1e-2" and before["tags"] == ["z"]
    callback.conclude(root)
    assert server.alerts
    assert {key: run.variables.get(key) for key in before} == before
    assert not server.unknown


@pytest.mark.slow
def test_a_sweep_that_is_offline_tells_nobody_and_says_that_nothing_is_linked(
    swept, server, caplog
):
    root = swept("track=offline", "track.registry=models")
    callback.conclude(root)
    assert not server.alerts and not server.linked
    assert "track.registry=models: the best arm is not in W&B" in caplog.text


@pytest.mark.faults
@timed
@pytest.mark.parametrize("mode", ["hang", "forbidden"])
def test_a_server_that_fails_then_costs_a_warning_and_the_ranking_is_there(
    swept, server, caplog, monkeypatch, mode
):
    monkeypatch.setattr(wandb_answer, "SECONDS", 0.25)
    root = swept("track=online", "track.registry=models", "track.init_timeout=1")
    for number in (0, 1):
        path = root / str(number) / config.RESOLVED
        path.write_text(path.read_text().replace("finish_timeout: 60", "finish_timeout: 3"))
    server.mode = mode
    begun = time.monotonic()
    callback.conclude(root)
    assert time.monotonic() - begun < 12
    assert (root / "summary.json").exists()
    ours = [record for record in caplog.records if record.name.startswith("lm.record.wandb")]
    (warning,) = (record.getMessage() for record in ours if record.levelname == "WARNING")
    assert ("403" if mode == "forbidden" else "does not answer in 0.25 seconds") in warning


def test_a_run_by_itself_links_its_own_model(cfg, tiny, tmp_path, server):
    words = (*tiny, *TINY_TRANSFORMER, "track=online", "track.registry=models/small")
    train.train(cfg(*words), tmp_path)
    uid = files.read_json(tmp_path / "wandb.json")["id"]
    assert server.linked == [f"wandb-registry-models/small <- model-{uid}"]


def test_a_registry_that_is_not_there_costs_a_warning(cfg, tiny, tmp_path, server, caplog):
    train.train(cfg(*tiny, "model=bigram", "track=online", "track.registry=none"), tmp_path)
    assert "W&B did not take the artifacts" in caplog.text and not server.linked
    assert (tmp_path / "summary.json").exists()


def test_what_can_be_no_registry_is_refused_before_anything_is_trained(cfg, tiny):
    for name in ("a b", "a/b/c", "/", "a/"):
        with pytest.raises(ConfigError, match=r"track\.registry=.*: give a registry of W&B"):
            config.TrackConfig(registry=name)


def test_addresses_of_w_and_b_are_read_and_the_command_names_what_is_not_the_default():
    url = "https://wandb.ai/me/lm/runs/a1b2c3d4"
    assert wandb_registry.place(url) == ("me", "lm", "a1b2c3d4")
    mine = wandb_registry.view_command(url)
    assert mine == "python -m lm.dashboard makes a view of all runs there"
    other = wandb_registry.view_command(url.replace("/lm/", "/other/"))
    assert other == "python -m lm.dashboard project=me/other makes a view of all runs there"
