"""Runs are read as they lie, whatever is torn, strange or still being written."""

import json
import os

import pytest

from lm import config
from lm.record import schemas
from lm.report import records
from lm.system import foreign
from lm.system.errors import DamagedError


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


@pytest.mark.parametrize(
    ("path", "n_files", "name"),
    [
        ("my/notes", 25, "notes (25 files)"),
        ("my/notes/", 25, "notes (25 files)"),
        ("my/*.md", 2, "2 files"),
        ("[a.md,b.md]", 2, "2 files"),
        ("my/notes", 1, "0.md"),
        ("my/notes", 0, "notes"),
        ("my/*.md", 0, "files"),
    ],
)
def test_a_text_of_many_files_is_called_by_its_folder(fake_run, path, n_files, name):
    """Every folder of notes was called by the number of its files alone."""
    out = fake_run("outputs/runs/d/a", "corpus=files", f"corpus.path={path}")
    run = records.read(out)
    run.data.corpus.source["files"] = [{"name": f"{i}.md"} for i in range(n_files)]
    assert run.corpus_name == name


def test_a_log_of_more_than_256_mb_is_refused_before_memory_is_taken(fake_run, monkeypatch):
    path = fake_run("outputs/runs/d/a") / "metrics.jsonl"
    monkeypatch.setattr(foreign, "MAX_LINES", path.stat().st_size)
    assert len(schemas.read_rows(path)) == 3
    monkeypatch.undo()
    os.truncate(path, (256 << 20) + 1)
    with pytest.raises(DamagedError, match="268,435,457 bytes, and 268,435,456 are allowed"):
        schemas.read_rows(path)


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "a": NaN, "seconds": Infinity}',  # which json writes
        '{"step": 1, "a": "\\ud800"}',
        '{"step": 1, "step": 2, "a": 1.0, "a": 1}',
        '{"step": 1, "a": [1e400, -0.0, 1000000000000000000000000]}',
    ],
)
def test_a_row_is_read_as_json_reads_it(line, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(line)
    assert repr(schemas.read_rows(tmp_path / "metrics.jsonl")) == repr([json.loads(line)])


def test_a_number_that_no_float_holds_is_none():
    """A stranger's settings may hold one, and OverflowError ended the report."""
    odd = [float("nan"), float("inf"), 10**400, -(10**400), "1", None]
    assert not any(records.is_number(value) for value in odd)
    assert all(records.is_number(value) for value in (0, -1, 0.5, 10**300, True))
