"""A model that a run logged to W&B opens by name, with the real client, and like any stranger's."""

import json
import re
import time
from pathlib import Path

import pytest
import torch

from lm import config, train
from lm.record import wandb_answer, wandb_artifact
from lm.record.run import Run
from lm.system import files
from lm.system.errors import SilentServerError
from tests.helpers import TINY_TRANSFORMER, timed


@pytest.fixture
def logged(cfg, tiny, tmp_path, server):
    """The directory of a run on the stand-in server, and the name of its model there."""
    out = tmp_path / "outputs/runs/a/b"
    out.mkdir(parents=True)
    loaded = cfg(*tiny, *TINY_TRANSFORMER, "track=online", "track.finish_timeout=10")
    config.save(loaded, out / config.RESOLVED)
    train.train(loaded, out)
    uid = json.loads((out / "wandb.json").read_text())["id"]
    return out, f"wandb:me/lm/model-{uid}:best"


def replace(server, old: bytes, new: bytes) -> None:
    """Give other bytes out for a stored file."""
    (md5,) = (k for k, v in server.blobs.items() if v == old)
    server.blobs[md5] = new


def test_a_model_in_w_and_b_is_the_run_s_own_and_is_downloaded_once(logged, server):
    out, name = logged
    ours, theirs = Run.open(str(out)), Run.open(name)
    assert theirs.path.parent == files.cache_dir()
    assert config.flat(theirs.cfg) == config.public(config.flat(ours.cfg))
    same = zip(ours.model().parameters(), theirs.model().parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    server.blobs.clear()  # no file can be had a second time
    assert Run.open(name).path == theirs.path
    assert Run.open(name.replace(":best", ":latest")).path == theirs.path


@pytest.mark.faults
def test_lm_sample_takes_the_name(logged, command):
    out, name = logged
    words = ("prompt=3 plus", "max_tokens=8")
    there, here = (command("lm.sample", f"run={r}", *words) for r in (name, str(out)))
    assert there.returncode == here.returncode == 0, there.stderr
    assert there.stdout == here.stdout


@pytest.mark.faults
@pytest.mark.parametrize(
    ("file", "message"),
    [("model.safetensors", "its checksum differs"), ("manifest.json", "files missing or added")],
)
def test_a_download_that_is_not_what_was_logged_is_refused_and_leaves_nothing(
    logged, server, file, message
):
    out, name = logged
    (path,) = out.rglob(f"step_000020/{file}")
    changed = path.read_bytes().replace(b"state.json", b"staat.json")
    replace(server, path.read_bytes(), changed if "json" in file else changed[:-1] + b"!")
    with pytest.raises(ValueError, match=message):
        wandb_artifact.fetch(name)
    assert not list(files.cache_dir().glob("*wandb-*"))


def test_an_artifact_that_points_at_a_file_of_this_machine_is_refused(logged, server):
    _, name = logged
    for key, data in server.files.items():
        if key.startswith("manifest/") and b"model.safetensors" in data:
            listed = json.loads(data)
            listed["contents"]["tokenizer.json"]["ref"] = "file:///etc/hostname"
            server.files[key] = json.dumps(listed).encode()
    with pytest.raises(ValueError, match=r"it has no file tokenizer\.json"):
        wandb_artifact.fetch(name)


@timed
@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_server_that_hangs_is_given_up(logged, server, monkeypatch, from_the_start):
    """It took 27 s, and without a limit where a download had begun."""
    _, name = logged
    monkeypatch.setattr(wandb_answer, "SECONDS", 0.25)
    stored, server.mode = server.stored, "hang" if from_the_start else "ok"

    def hang_soon(path):
        server.mode = "hang"
        return stored(path)

    monkeypatch.setattr(server, "stored", hang_soon)
    begun = time.monotonic()
    with pytest.raises(SilentServerError, match=r"run=wandb:.* does not answer in 0.25 seconds"):
        wandb_artifact.fetch(name)
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandb:model:best", "write wandb:ENTITY/PROJECT/ARTIFACT:ALIAS"),
        ("wandb:me/lm/../x:best", "write wandb:ENTITY/PROJECT/ARTIFACT:ALIAS"),
        ("wandb:me/lm/model-none:best", "not found in 'me/lm'"),
    ],
)
def test_a_name_that_is_none_is_told_in_one_line(server, name, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        wandb_artifact.fetch(name)
    assert "\n" not in str(caught.value)


def test_without_a_key_the_way_to_one_is_told(fresh_client):
    with pytest.raises(ValueError, match="wandb login, or set WANDB_API_KEY"):
        wandb_artifact.fetch("wandb:me/lm/model:best")
    assert not Path("outputs").exists()
