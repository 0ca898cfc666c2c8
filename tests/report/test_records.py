"""Runs are read as they lie, whatever is torn, strange or still being written."""

import os

from lm import config
from lm.report import records


def test_a_torn_last_line_is_left_out(fake_run):
    path = fake_run("outputs/runs/d/a", done=False)
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"step": 30, "tok')
    assert len(records.read(path).rows) == 3


def test_a_run_is_running_until_its_points_are_old(fake_run):
    path = fake_run("outputs/runs/d/a", done=False)
    assert records.read(path).status == "running"
    os.utime(path / "metrics.jsonl", (1, 1))
    assert records.read(path).status == "stopped"
    assert records.read(fake_run("outputs/runs/d/b")).status == "done"


def test_settings_read_by_the_fast_loader_equal_those_of_the_checked_one(fake_run):
    path = fake_run("outputs/runs/d/a", "optimizer.lr=1e-5", "track.notes=1:30", "name=NO")
    assert records.read(path).settings == config.flat(config.load(path / config.RESOLVED))
