"""A study survives kills, draws anew for each trial, prunes, and is taken for no other."""

import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path

import filelock
import pytest

from lm.settings.commands import TunerConfig
from lm.sweep import study, tuner
from lm.sweep.space import load_optuna
from lm.system.errors import ConfigError, DamagedError, Pruned
from tests.helpers import no_locks, timed
from tests.sweep.searches import new_study, search_space, states, trials


def test_a_journal_torn_by_a_kill_is_read_and_goes_on(tmp_path):
    there = new_study(tmp_path)
    _, found = search_space("a=interval(0.0,1.0)")
    there.tell(there.ask(found), 1.0)
    journal = tmp_path / "optuna.journal"
    whole = journal.read_bytes()
    for cut in range(1, 60, 7):
        journal.write_bytes(whole + whole[:cut].rstrip(b"\n"))
        again = study.open_study(tmp_path)
        again.tell(again.ask(found), 2.0)
        assert [t.value for t in trials(tmp_path)] == [1.0, 2.0]
        journal.write_bytes(whole)


@timed
@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_a_search_killed_while_it_writes_its_journal_goes_on_at_once(tmp_path, kind):
    """Optuna's own lock was never released where the sweep's directory was relative."""
    root = Path("s") if kind == "relative" else tmp_path / "s"
    new_study(root)
    _, found = search_space("a=interval(0.0,1.0)")
    (root / "optuna.journal.lock").symlink_to("s/optuna.journal")  # as older versions left it

    def killed():
        there = study.open_study(root)
        os.fsync = lambda _: os._exit(9)  # the line is written and the lock is held
        there.ask(found)

    child = multiprocessing.get_context("fork").Process(target=killed)
    child.start()
    child.join()
    assert child.exitcode == 9
    began = time.monotonic()
    again = study.open_study(root)
    again.tell(again.ask(found), 2.0)
    assert time.monotonic() - began < 10
    assert states(root) == ["RUNNING", "COMPLETE"]


def test_a_search_needs_neither_links_nor_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "symlink", no_locks)
    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    search = tuner.Search(tmp_path, TunerConfig(n_trials=2), *search_space("a=interval(0.0,1.0)"))
    for _ in range(2):
        (trial,) = search.next_trials()
        search.study.tell(trial, 1.0)
    assert not search.next_trials() and states(tmp_path) == ["COMPLETE"] * 2
    # Who died is not known without locks, so a trial is left to its process for a while.
    search.n_trials = 3
    assert len(search.next_trials()) == 1 and not search.next_trials()
    monkeypatch.setattr(study, "SILENT", 0.0)
    assert len(search.next_trials()) == 1


TEXT = "words of no journal"
LINE = {"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": "2026-01-01T00:00:00"}
FLOAT = (
    '{"name": "FloatDistribution", "attributes": {"low": 0, "high": 1, "step": null, "log": false}}'
)
PARAM = {"op_code": 5, "worker_id": "w", "trial_id": 0, "param_name": "a", "distribution": FLOAT}
END = {"op_code": 6, "worker_id": "w", "trial_id": 0, "state": 1, "values": [1.0]}
END["datetime_complete"] = "2026-01-01T00:00:00"
STEP = {"op_code": 7, "worker_id": "w", "trial_id": 0, "step": 1, "intermediate_value": 1.0}
DAMAGED = {  # lines after those of a good journal, each with a first trial
    "no JSON": [TEXT],
    "a list": [[1]],
    "a number": [7],
    "null": [None],
    "no code": [{"worker_id": "w"}],
    "unknown code": [LINE | {"op_code": 99}],
    "a code of text": [LINE | {"op_code": "create"}],
    "no fields": [{"op_code": 4, "worker_id": "w"}],
    "no date": [LINE | {"datetime_start": "noon"}],
    "no distribution": [PARAM | {"param_value_internal": 0.5, "distribution": "{}"}],
    "a value of text": [PARAM | {"param_value_internal": "low"}, END],
    "a value outside": [PARAM | {"param_value_internal": 7.0}, END],
    "a score of text": [END | {"values": ["low"]}],
    "a score of nothing": [END | {"values": None}],
    "a score that is NaN": [END | {"values": [float("nan")]}],
    "two scores": [END | {"values": [1.0, 2.0]}],
    "no scores": [END | {"values": []}],
    "an unknown state": [END | {"state": 42}],
    "a report of text": [STEP | {"intermediate_value": "x"}],
    "a report without a step": [STEP | {"step": None}],
    "deep": ["[" * 100_000],
    "bytes": [b"\xff\xfe\x00"],
    "zeros": [b"\x00" * 4096],
    "another direction": None,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_journal_is_one_line(kind, tmp_path):
    there = new_study(tmp_path)
    there.ask()
    path = tmp_path / "optuna.journal"
    good = path.read_bytes()
    if DAMAGED[kind] is None:
        bad = good.replace(b'"directions":[1]', b'"directions":[2]')
    else:
        lines = [x if isinstance(x, (bytes, str)) else json.dumps(x) for x in DAMAGED[kind]]
        bad = good + b"".join((x if isinstance(x, bytes) else x.encode()) + b"\n" for x in lines)
        bad += b'{"op_code": 8, "worker_id": "w", "trial_id": 0, "user_attr": {"a": 1}}\n'
    path.write_bytes(bad)
    with pytest.raises(DamagedError, match=f"{path} is not the journal of a search: .") as caught:
        study.open_study(tmp_path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == bad


@pytest.mark.parametrize("kind", ["no JSON", "deep", "bytes", "zeros"])
def test_damaged_last_lines_of_a_journal_are_set_aside_and_the_search_goes_on(
    kind, tmp_path, caplog
):
    """A power cut may leave zeros and the end of a line: the search could not go on."""
    new_study(tmp_path).ask()
    path = tmp_path / "optuna.journal"
    good = path.read_bytes()
    (line,) = DAMAGED[kind]
    bad = 2 * ((line if isinstance(line, bytes) else line.encode()) + b"\n")
    path.write_bytes(good + bad)
    assert states(tmp_path) == ["RUNNING"]
    assert path.read_bytes() == good
    assert (tmp_path / "damaged_optuna.journal").read_bytes() == bad
    assert f"{path} goes on without its damaged last lines, which are in" in caplog.text


@pytest.mark.parametrize(
    "text", ["a,b\n1,2", "words", "{}", "\n", "[1]\n[2]", "\0" * 5000, "\0\n", "\x7fELF\x01"]
)
def test_a_file_that_is_no_journal_keeps_every_byte(text, tmp_path):
    (tmp_path / study.STUDY).write_text('{"journal": "mine.csv"}')
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(DamagedError, match=r"mine\.csv is not the journal of a search"):
        study.open_study(tmp_path)
    assert (tmp_path / "mine.csv").read_text() == text


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: p.symlink_to("/dev/zero")])
def test_a_journal_that_is_no_plain_file_is_not_waited_for(make, tmp_path):
    (tmp_path / study.STUDY).write_text("{}")
    make(tmp_path / "optuna.journal")
    with pytest.raises(DamagedError, match=r"optuna\.journal is not a plain file"):
        study.open_study(tmp_path)


def test_a_journal_of_a_terabyte_is_refused_before_memory_is_taken(tmp_path):
    (tmp_path / study.STUDY).write_text("{}")
    (tmp_path / "optuna.journal").touch()
    os.truncate(tmp_path / "optuna.journal", 1 << 40)
    with pytest.raises(DamagedError, match=r"optuna\.journal has 1,099,511,627,776 bytes, and"):
        study.open_study(tmp_path)
    assert (tmp_path / "optuna.journal").stat().st_size == 1 << 40


def test_an_empty_journal_is_a_new_one(tmp_path):
    (tmp_path / study.STUDY).write_text("{}")
    for zeros in (0, 4096):  # which a power cut may leave
        (tmp_path / "optuna.journal").write_bytes(bytes(zeros))
        assert not study.open_study(tmp_path).trials


def test_the_draws_of_neighbouring_trials_are_spread_over_the_whole_range(tmp_path):
    """Seeds 0, 1, 2, ... gave first draws between 0.4 and 0.55 again and again."""
    chosen = TunerConfig(sampler="random")
    there = new_study(tmp_path)
    values = []
    for n in range(40):
        there.sampler = study.sampler(chosen, n)
        values.append(there.ask(search_space("a=interval(0.0,1.0)")[1]).params["a"])
    assert min(values) < 0.1 and max(values) > 0.9 and statistics.stdev(values) > 0.2


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_trial_that_falls_behind_is_pruned(tmp_path, pruner):
    there = new_study(tmp_path, pruner=pruner)
    _, found = search_space("a=interval(0.0,1.0)")

    def run(score: float) -> bool:
        trial = there.ask(found)
        report = study.reporter(tmp_path, trial.number)
        report(0, 99.0)  # before training: says nothing
        try:
            for step in range(1, 28):
                report(step, score)
        except Pruned:
            there.tell(trial, state=load_optuna().trial.TrialState.PRUNED)
            return True
        there.tell(trial, score)
        return False

    assert not any(run(1.0 - i / 100) for i in range(4))
    assert any(run(5.0) for _ in range(6))


def test_outside_a_study_nothing_is_reported(tmp_path):
    assert study.reporter(None, 0) is None
    assert study.reporter(tmp_path, 0) is None
    new_study(tmp_path)
    assert study.reporter(tmp_path, 0) is None


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("a=1,2", "train.steps=9"), "fixed"),
        (("a=1,2,3", "train.steps=5"), "space"),
        (("a=range(1,3)", "train.steps=5"), "space"),
        (("a=tag(log, interval(1,3))", "train.steps=5"), "space"),
        (("a=1,2", "b=1,2", "train.steps=5"), "space"),
    ],
)
def test_another_search_is_refused_in_the_directory_of_one(words, key, tmp_path):
    pytest.importorskip("optuna")
    same = search_space("track.project=x", "++train.steps=5", "train.micro_batch=auto", "a=1,2")
    same[0].append("train.log_every=3")
    study.describe(tmp_path, TunerConfig(), *search_space("train.steps=5", "a=1,2"))
    study.same_search(tmp_path, *same)
    with pytest.raises(ConfigError, match=f"holds another search: {key} is"):
        study.same_search(tmp_path, *search_space(*words))
