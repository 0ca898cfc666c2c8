"""A start writes into a directory that is free or its own, and one that fails changes no byte."""

import errno
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest

from lm import config, train
from lm.launch import directory, jobs, main, preflight, resume
from lm.system import files, store
from lm.system.errors import ConfigError, DamagedError, OtherRunError, StorageError
from tests.helpers import TINY

MINE = "the user's own"
OLD = Path(__file__).parent.parent / "data" / "before_redesign"


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(MINE)


def every_byte(folder: Path) -> dict[str, str]:
    """The checksum of each file below the folder, and its empty folders."""
    found = {}
    for path in folder.rglob("*"):
        key = str(path.relative_to(folder))
        if not key.startswith(("outputs", "wandb-home")):  # caches are ours
            found[key] = files.sha256(path) if path.is_file() else ""
    return found


def start(monkeypatch, *words: str) -> int:
    """The exit code of lm.train in this process."""
    monkeypatch.setattr(sys, "argv", ["lm.train", *words])
    with pytest.raises(SystemExit) as caught:
        main.main(train.run_job)
    return caught.value.code


FOREIGN = {
    "a run's names": ["data.json", "code.diff", "tokenizer.json"],
    "one file": ["tokenizer.json"],
    "a log": ["train.log"],
    "another program's .hydra": [".hydra/config.yaml", "train.log"],
    "a .running": [".running", "notes.txt"],
    "hidden": [".env"],
    "a folder": ["checkpoints/step_000005/model.safetensors"],
    "a Hugging Face folder": ["config.json", "model.safetensors", "tokenizer.json"],
    "another program's settings": [config.RESOLVED, "tokenizer.json"],
    "a name of a run's temporary file": [f".x.{files.HOST}.tmp"],
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_directory_of_somebodys_own_is_refused(kind, tmp_path):
    """`hydra.run.dir=.` deleted the user's data.json, code.diff and tokenizer.json."""
    write(tmp_path / "x", *FOREIGN[kind])
    before = every_byte(tmp_path)
    with pytest.raises(OtherRunError, match=r"choose another hydra\.run\.dir="):
        directory.check(tmp_path / "x")
    with pytest.raises(OtherRunError, match=r"and no sweep: choose another hydra\.sweep\.dir="):
        directory.check_sweep(tmp_path / "x")
    assert every_byte(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".running", "1 on x"),
        (".running", "12 on my-host\nsince Monday\n"),
        ("summary.json", '{"ranking": ["Anna", "Ben"]}'),
        ("summary.json", '{"ranking": [], "arms": []}'),
        ("summary.json", '{"ranking": [{"n": 1}], "arms": [{"name": "left"}]}'),
    ],
)
def test_a_file_that_looks_like_one_of_ours_makes_no_directory_ours(name, text, tmp_path):
    """Any number `on` a name was a run of ours, any ranking a sweep."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / name).write_text(text)
    (tmp_path / "x/multirun.yaml").write_text(MINE)
    with pytest.raises(OtherRunError, match="and no run"):
        directory.check(tmp_path / "x")
    with pytest.raises(OtherRunError, match="and no sweep"):
        directory.check_sweep(tmp_path / "x")


def test_records_beside_a_copied_configuration_are_not_taken_for_a_runs(cfg, tmp_path):
    config.save(cfg("track=off"), tmp_path / config.RESOLVED)
    directory.check(tmp_path)
    write(tmp_path, "code.diff")
    with pytest.raises(OtherRunError, match=r"has code\.diff and no data\.json"):
        directory.check(tmp_path)
    write(tmp_path, "data.json")
    with pytest.raises(OtherRunError, match=r"data\.json"):
        directory.check(tmp_path)


def test_what_a_start_left_when_it_was_killed_is_its_own(tmp_path):
    """A file of that name that is empty is a start's only where nothing else is."""
    for content in ("", store.holder(), f"17 on another-host{store.MARK}"):
        (tmp_path / store.HOLDER).write_text(content)
        directory.check(tmp_path)
        directory.check_sweep(tmp_path)
    (tmp_path / store.HOLDER).write_text("")
    write(tmp_path, "notes.txt")
    with pytest.raises(OtherRunError):
        directory.check(tmp_path)
    (tmp_path / "notes.txt").unlink()
    (tmp_path / store.HOLDER).unlink()
    files.temporary(tmp_path / store.HOLDER).touch()
    directory.check(tmp_path)
    directory.check(tmp_path / "nowhere")


def test_a_folder_with_a_run_in_it_is_no_sweep(cfg, tmp_path):
    write(tmp_path, "multirun.yaml", "summary.json", "notes.txt")
    (tmp_path / "run").mkdir()
    config.save(cfg("track=off"), tmp_path / "run" / config.RESOLVED)
    with pytest.raises(OtherRunError, match=r"multirun\.yaml, notes\.txt, run and 1 more, and no"):
        directory.check_sweep(tmp_path)


@pytest.mark.parametrize("name", ["sweep", "search"])
def test_directories_of_an_older_version_are_known(name):
    directory.check(OLD / "run")
    directory.check_sweep(OLD / name)


def fails(*words: str) -> tuple[str, ...]:
    return ("hydra.run.dir=x", *words)


STARTS = {
    "corpus.path of nowhere, in a folder that is not there": ([], fails("corpus.path=nowhere")),
    "the same, in a folder of the user's": (["x/tokenizer.json"], fails("corpus.path=nowhere")),
    "deep": ([], ("hydra.run.dir=a/b/c", "corpus.path=nowhere")),
    "the same, and Hydra writes first": (
        [],
        fails("corpus.path=nowhere", "hydra.output_subdir=.hydra"),
    ),
    "an unknown setting": (["x/data.json"], fails("modle=gru")),
    "all is well but the folder": (["x/data.json", "x/code.diff"], fails()),
    "a text that is too short": ([], fails("model.context_len=100000")),
    "a sweep in it": (
        ["multirun.yaml", "summary.json"],
        ("-m", "hydra.sweep.dir=.", "seed=0,1"),
    ),
    "an arm in another program's": (
        [f"x/{config.RESOLVED}", "x/error.log"],
        ("-m", "hydra.sweep.dir=s", "hydra.sweep.subdir=../x", "seed=0"),
    ),
    "an arm in it": (
        ["x/error.log", "x/result.json"],
        ("-m", "hydra.sweep.dir=s", "hydra.sweep.subdir=../x", "seed=0"),
    ),
}


@pytest.mark.parametrize("kind", STARTS)
def test_a_start_that_fails_leaves_every_byte_as_it_was(kind, tiny, tmp_path, monkeypatch):
    names, words = STARTS[kind]
    write(tmp_path, *names)
    before = every_byte(tmp_path)
    assert start(monkeypatch, *tiny, "model=bigram", *words) == 2
    assert every_byte(tmp_path) == before


def test_a_start_that_fails_leaves_a_run_as_it_was(cfg, toy_text, tmp_path, monkeypatch, caplog):
    """Hydra wrote .hydra and train.log of a run before it was refused, and summary.json was gone
    when the text was."""
    caplog.set_level("INFO")
    shutil.copy(toy_text, "toy.txt")
    words = ("corpus=files", "corpus.path=toy.txt", *TINY, "model=bigram")

    def job(*changes: str) -> jobs.Job:
        hydra = {".hydra/config.yaml": " ".join(changes)}
        return jobs.Job(cfg(*words, *changes), Path("run"), [], hydra=hydra)

    train.run_job(job())
    before = every_byte(tmp_path / "run")
    assert ".hydra/config.yaml" in before
    assert "best val/bpb" in Path("run/train.log").read_text()
    os.rename("toy.txt", "text.txt")
    for make in (
        lambda: job("seed=1"),
        lambda: job("train.steps=1"),
        lambda: job("train.steps=3000"),
        lambda: resume.job(["resume=run", "train.steps=1"]),
        lambda: resume.job(["resume=run", "train.steps=3000"]),
        lambda: resume.job(["resume=run", "seed=1"]),
    ):
        with pytest.raises((ConfigError, FileNotFoundError)):
            train.run_job(make())
        assert every_byte(tmp_path / "run") == before
    assert start(monkeypatch, *words, "hydra.run.dir=run", "seed=1") == 2
    assert every_byte(tmp_path / "run") == before


def test_a_disk_that_is_full_at_the_first_file_is_exit_code_4(tiny, tmp_path, monkeypatch, capsys):
    """It was 2, or a traceback of Hydra's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # no file may grow
    try:
        assert start(monkeypatch, *tiny, "model=bigram", "hydra.run.dir=x") == 4
        assert start(monkeypatch, "-m", *tiny, "model=bigram", "hydra.sweep.dir=s") == 4
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: [Errno 27] File too") for line in lines)
    assert not (tmp_path / "x").exists()


def test_a_full_disk_is_told_from_one_that_cannot_be_written(tmp_path, monkeypatch):
    for number, error in ((errno.ENOSPC, StorageError), (errno.EACCES, ConfigError)):

        def refused(*_: object, number: int = number, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "touch", refused)
        with pytest.raises(error, match="cannot write to"):
            preflight.check(["track=off", "hydra.run.dir=x"])


def test_a_sweep_waits_for_no_pipe_and_follows_no_link(tmp_path):
    directory.mark_sweep(tmp_path)
    (tmp_path / "0").symlink_to("/tmp")  # an arm on another disk
    directory.check_sweep(tmp_path)
    for name, make in (
        ("multirun.yaml", os.mkfifo),
        ("summary.json", lambda path: path.symlink_to("/etc/hostname")),
        ("trials.jsonl", lambda path: path.symlink_to("nowhere")),
        (".arms", lambda path: path.symlink_to("/tmp")),
    ):
        make(tmp_path / name)
        with pytest.raises(DamagedError, match=f"{name} is not a plain file"):
            directory.check_sweep(tmp_path)
        (tmp_path / name).unlink()


def test_a_complete_run_stays_as_it_is_with_a_file_of_the_user_s_beside_it(cfg, tiny, tmp_path):
    """Its log, its lock and .hydra were written at every start."""
    made = cfg(*tiny, "model=bigram_counts")
    job = jobs.Job(made, Path("run"), [], hydra={".hydra/config.yaml": "x: 1"})
    score = train.run_job(job)
    write(Path("run"), "thoughts.txt")
    before = {path: path.stat() for path in [Path("run"), *Path("run").rglob("*")]}
    bytes_before = every_byte(Path("run"))
    assert train.run_job(job) == score
    assert every_byte(Path("run")) == bytes_before
    assert {path: path.stat().st_mtime_ns for path in before} == {
        path: status.st_mtime_ns for path, status in before.items()
    }
    job.cfg = cfg(*tiny, "model=bigram_counts", "train.log_every=3")  # what may change is saved
    train.run_job(job)
    assert config.load(Path("run") / config.RESOLVED).train.log_every == 3
    assert Path("run/thoughts.txt").read_text() == MINE


def test_the_lock_that_an_older_version_left_in_a_search_stops_none(tmp_path):
    directory.mark_sweep(tmp_path)
    (tmp_path / "optuna.journal.lock").symlink_to("gone")
    directory.check_sweep(tmp_path)
    (tmp_path / "other.lock").symlink_to("gone")
    with pytest.raises(DamagedError, match=r"other\.lock is not a plain file"):
        directory.check_sweep(tmp_path)
