"""A copied run gets a W&B run of its own; one that was moved goes on with its own."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from lm.record import wandb_client, wandb_files, wandb_names, wandb_record
from lm.record.schemas import WandbRecord
from lm.record.wandb_mirror import Mirror
from lm.system import files


@pytest.fixture
def opened(cfg, monkeypatch):
    """opened(out): the id of the W&B run that a start in `out` would open."""

    def refuse(*_: object) -> None:  # W&B itself: see test_tracker.py
        raise ConnectionError("not here")

    monkeypatch.setattr(wandb_client, "open_run", refuse)
    made = cfg("track=offline")

    def open_one(out: Path) -> str:
        out.mkdir(exist_ok=True)
        (out / "metrics.jsonl").touch()
        # Closed, as its thread would make outputs/ where the next test is by then.
        Mirror(out, made, None, 0, "gru").close(None)
        return json.loads((out / "wandb.json").read_text())["id"]

    return open_one


def test_a_copy_gets_a_run_of_its_own_and_says_so(opened, caplog):
    """`cp -r run copy` and `resume=copy` logged into the W&B run of the first one."""
    caplog.set_level(logging.INFO)
    run, copy, second = Path("run"), Path("copy"), Path("second")
    first = opened(run)
    assert opened(run) == first and "copy" not in caplog.text
    shutil.copytree(run, copy)
    own = opened(copy)
    assert own != first
    assert (
        f"copy is a copy of {run.absolute()}, so it gets a W&B run of its own, {own}" in caplog.text
    )
    assert (opened(run), opened(copy)) == (first, own)
    shutil.copytree(copy, second)
    assert opened(second) not in (first, own)


def test_a_copy_is_one_where_the_first_was_moved_too(opened):
    """`cp -r run copy`, `mv run old`: both logged into one W&B run."""
    first = opened(Path("run"))
    shutil.copytree("run", "copy")
    os.rename("run", "old")
    assert opened(Path("copy")) != first
    assert opened(Path("old")) == first


def test_a_run_that_was_moved_goes_on_with_its_own(opened):
    first = opened(Path("run"))
    os.rename("run", "moved")
    assert opened(Path("moved")) == first
    shutil.copytree("moved", "other_disk")
    shutil.rmtree("moved")
    record = json.loads(Path("other_disk/wandb.json").read_text())
    Path("other_disk/wandb.json").write_text(json.dumps(record | {"device": record["device"] + 1}))
    assert opened(Path("other_disk")) == first
    os.symlink("other_disk", "link")
    assert opened(Path("link")) == first


def test_what_another_machine_wrote_is_taken_for_a_copy_unless_it_is_the_same_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    record = wandb_record.at_home(out, "a1")
    assert not wandb_record.is_copy(out, WandbRecord("a1"))  # of an older version
    record.home, record.host = "/mnt/elsewhere/out", "another"
    assert not wandb_record.is_copy(out, record)  # a shared folder under another name
    record.inode += 1
    assert wandb_record.is_copy(out, record)
    record.host, record.device = files.HOST, record.device + 1
    assert not wandb_record.is_copy(out, record)  # moved to another disk


def test_a_start_that_is_cut_short_keeps_where_the_next_goes_on_and_a_copy_does_not(opened):
    """Points whose counter was there before are dropped by W&B, and old curves keep their names."""
    uid = opened(Path("run"))
    file = Path("run/wandb.json")
    kept = {"first": 7, "name": "mine", "names": 0}
    file.write_text(json.dumps(json.loads(file.read_text()) | kept | {"url": "u", "closed": True}))
    shutil.copytree("run", "copy")
    record, saved = wandb_record.begin(Path("run"))
    assert (saved.id, saved.url, saved.closed) == (uid, "u", True)
    written = json.loads(file.read_text())
    assert written["id"] == record.id == uid
    assert written == written | kept | {"url": None, "closed": False}
    record, saved = wandb_record.begin(Path("copy"))
    assert (record.first, record.names, saved) == (0, wandb_names.VERSION, None)


def test_the_last_points_are_whole_lines_of_the_last_seconds(tmp_path):
    lines = [json.dumps({"step": step, "seconds": 10.0 * step}) + "\n" for step in range(5)]
    (tmp_path / "m.jsonl").write_text("".join(lines) + '{"step": 5, "sec')
    last = wandb_files.last_points(tmp_path / "m.jsonl", 20)
    assert [row["step"] for row in last] == [3, 4]
    (tmp_path / "m.jsonl").write_text("")
    assert wandb_files.last_points(tmp_path / "m.jsonl", 20) == []
