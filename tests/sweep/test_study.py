"""A study survives kills, draws anew for each trial, prunes, and is taken for no other."""

import statistics

import pytest

from lm.sweep import study
from lm.sweep.space import TunerConfig, load_optuna
from lm.system.errors import ConfigError, Pruned
from tests.sweep.searches import new_study, search_space, trials


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
        report = study.reporter(tmp_path, tmp_path / str(trial.number))
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
    assert study.reporter(None, tmp_path) is None
    assert study.reporter(tmp_path, tmp_path / "0") is None
    new_study(tmp_path)
    assert study.reporter(tmp_path, tmp_path / "0") is None


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
