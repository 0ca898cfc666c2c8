"""A search: every trial once, recorded as it ended, and it goes on after a kill."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time

import pytest

from lm.launch import compose
from lm.settings.commands import TunerConfig
from lm.settings.yaml_files import read_yaml
from lm.sweep import study, tuner
from lm.system import files, store
from lm.system.errors import ConfigError
from tests.helpers import TINY_TRANSFORMER, start
from tests.sweep.searches import new_study, search_space, states, trials

# Models that only count take a blink: their one setting is as good to search as any other.
COUNTS = ("model=bigram_counts", "model.add_k=tag(log, interval(1e-3,1e3))")


TUNE = ("-m", "hydra/sweeper=lm", "hydra.sweep.dir=outputs/tune", "hydra.sweeper.n_startup=4")


def test_a_grid_s_points_are_queued_once(tmp_path):
    there = new_study(tmp_path)
    _, found = search_space("a=1,2,3", "b=range(0,2)")
    assert tuner.enqueue_grid(there, found) == tuner.enqueue_grid(there, found) == 6
    points = [there.ask(found).params for _ in range(6)]
    assert len({tuple(p.items()) for p in points}) == 6
    with pytest.raises(ConfigError, match="sampler=grid takes"):
        tuner.enqueue_grid(there, search_space("a=interval(0,1)")[1])


def test_trials_that_run_two_at_a_time_never_draw_the_same_values(tmp_path):
    """The second trial of a batch and the first one of the next had the same seed."""
    chosen = TunerConfig(sampler="random", n_jobs=2)
    chosen.n_trials = 6
    search = tuner.Search(tmp_path, chosen, *search_space("a=interval(0.0,1.0)"))
    drawn = []
    for _ in range(3):
        batch = search.next_trials()
        for trial in batch:
            search.study.tell(trial, 1.0)
        drawn += [trial.params["a"] for trial in batch]
    assert len(set(drawn)) == 6 and not search.next_trials()


def test_a_trial_is_left_to_the_process_that_lives_and_taken_over_once_it_does_not(tmp_path):
    """Two containers with one host name and one process number failed each other's trials."""
    words = search_space("a=interval(0.0,1.0)")
    chosen = TunerConfig(n_trials=2)
    first, second = (tuner.Search(tmp_path, chosen, *words) for _ in range(2))
    assert [t.number for t in first.next_trials()] == [0]
    assert [t.number for t in second.next_trials()] == [1]
    assert not first.next_trials() and not second.next_trials()
    for number in (0, 1):  # as the end of its process does
        first.held.let_go(number)
    with store.locked(tmp_path / "0"):  # its job lives on, as one of Slurm's does
        assert not second.next_trials()
    (trial,) = second.next_trials()
    assert trial.number == 0
    second.study.tell(trial, 1.0)
    second.held.let_go(0)
    assert not first.next_trials() and states(tmp_path) == ["COMPLETE", "RUNNING"]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_trial_that_was_left_before_its_settings_were_drawn_gets_them(sampler, tmp_path):
    """It trained with the defaults, and counted as a trial of the search."""
    words = search_space("a=1,2,3,4", "b=range(0,9,2)", "c=x,y")
    chosen = TunerConfig(sampler=sampler)
    (expected,) = tuner.Search(tmp_path / "unharmed", chosen, *words).next_trials()
    for n_drawn in range(4):
        root = tmp_path / str(n_drawn)
        killed = tuner.Search(root, chosen, *words)
        killed.study.sampler = study.sampler(chosen, 0)
        before = killed.study.ask(dict(list(killed.space.items())[:n_drawn])).params
        (found,) = tuner.Search(root, chosen, *words).next_trials()
        assert found.number == 0 and found.params.keys() == words[1].keys()
        assert found.params.items() >= before.items()
        if n_drawn == 0 or sampler == "grid":
            assert found.params == expected.params


def test_a_search_without_a_complete_trial_says_so_and_names_no_best_one(tmp_path, caplog):
    caplog.set_level("INFO")
    there = new_study(tmp_path)
    trial = there.ask(search_space("a=interval(0.0,1.0)")[1])
    tuner.record_trial(there, trial, tmp_path)
    tuner.conclude(there, tmp_path)
    assert "no trial of 1 is complete" in caplog.text
    assert read_yaml(tmp_path / "optimization_results.yaml") == {"fail": 1}


def test_the_sweeper_needs_no_other_plugin_of_hydra():
    """Hydra takes plugins from the package hydra_plugins alone, which other plugins share."""
    code = """
import sys
import hydra_plugins
root = sys.argv[1]
assert f"{root}/hydra_plugins" in hydra_plugins.__path__
hydra_plugins.__path__ = [f"{root}/hydra_plugins"]
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from lm.launch import compose, preflight
compose.register()
preflight.check(["-m", "hydra/sweeper=lm", "optimizer.lr=interval(0,1)"])
(tuner,) = (p for p in Plugins.instance().discover(Sweeper) if p.__name__ == "Tuner")
assert f"{tuner.__module__}.{tuner.__name__}" == compose.TUNER
"""
    root = str(compose.folder("conf").parent)
    command = [sys.executable, "-c", code, root]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, check=True)


def test_hydra_finds_the_sweeper_without_loading_what_a_search_needs():
    code = """
import sys
from hydra.core.plugins import Plugins
Plugins.instance()
assert "hydra_plugins.lm_sweeper" in sys.modules
sys.exit(any(name in sys.modules for name in ("lm", "optuna", "torch")))
"""
    root = str(compose.folder("conf").parent)
    command = [sys.executable, "-c", code]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", pytest.param("random", marks=pytest.mark.faults)])
def test_a_search_finds_a_good_setting_and_says_what_mattered(command, tiny, tmp_path, sampler):
    done = command(
        "lm.train",
        *TUNE,
        *tiny,
        *COUNTS,
        "hydra.sweeper.n_trials=6",
        f"hydra.sweeper.sampler={sampler}",
    )
    root = tmp_path / "outputs/tune"
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(root) == ["COMPLETE"] * 6
    results = read_yaml(root / "optimization_results.yaml")
    values = [t.value for t in trials(root)]
    assert results["best_value"] == min(values) < statistics.median(values)
    assert results["importance"] == {"model.add_k": 1.0}
    rows = [json.loads(r) for r in (root / "trials.jsonl").read_text().splitlines()]
    assert [r["trial"] for r in rows] == list(range(6))
    assert "best of 6 trials" in done.stdout and (root / "multirun.yaml").exists()
    assert "optuna-dashboard outputs/tune/optuna.journal shows the trials" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.faults)])
def test_failed_and_pruned_trials_are_recorded_and_tolerated(command, tiny, tmp_path, pruner):
    """The first trial overflows, before any other could show it to be behind; the last crawl."""
    words = ["optimizer.lr=1e30,1e-2,9e-3,8e-3,1e-9,1e-8", "hydra.sweeper.sampler=grid"]
    words += [f"hydra.sweeper.pruner={pruner}", "train.eval_every=2", "train.sample_every=0"]
    done = command("lm.train", *TUNE, *tiny, *TINY_TRANSFORMER, *words)
    root = tmp_path / "outputs/tune"
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(root)[:2] == ["FAIL", "COMPLETE"]
    assert "PRUNED" in states(root)[2:] and len(states(root)) == 6
    rows = [json.loads(r) for r in (root / "trials.jsonl").read_text().splitlines()]
    assert "the loss is" in rows[0]["error"] and rows[0]["value"] is None
    pruned = [row for row in rows if row["status"] == "pruned"]
    assert all("is behind the other trials" in row["error"] for row in pruned)
    assert not (root / str(pruned[0]["trial"]) / "summary.json").exists()
    results = read_yaml(root / "optimization_results.yaml")
    assert results["best"]["optimizer.lr"] in ("0.01", "0.009", "0.008")
    assert (results["fail"], results["pruned"]) == (1, len(pruned))
    assert "pruned           0  optimizer.lr=1e-0" in done.stdout


@pytest.mark.faults
def test_three_processes_share_one_study_and_none_does_a_trial_twice(tiny, tmp_path):
    words = [*TUNE, *tiny, *COUNTS, "hydra.sweeper.n_trials=12"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    processes = [start("lm.train", *words, text=True, **streams) for _ in range(3)]
    said = [p.communicate(timeout=240)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0], said
    root = tmp_path / "outputs/tune"
    assert states(root) == ["COMPLETE"] * 12
    assert len({t.params["model.add_k"] for t in trials(root)}) == 12
    rows = [json.loads(r)["trial"] for r in (root / "trials.jsonl").read_text().splitlines()]
    assert sorted(rows) == list(range(12))


@pytest.mark.faults
def test_a_killed_search_goes_on_and_finishes_the_trial_it_was_in(command, tiny, tmp_path):
    words = [*TUNE, *tiny, *TINY_TRANSFORMER, "optimizer.lr=interval(1e-3,1e-2)"]
    words += [
        "model.n_layer=range(1,3)",
        "hydra.sweeper.n_trials=4",
        "train.steps=300",
        "train.save_every=20",
    ]
    words += ["train.eval_every=100", "train.sample_every=0"]
    root = tmp_path / "outputs/tune"
    process = start("lm.train", *words)
    try:
        deadline = time.monotonic() + 240
        while not (root / "1/checkpoints/step_000020").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert states(root)[:2] == ["COMPLETE", "RUNNING"]
    params = [t.params for t in trials(root)]
    first = files.read_json(root / "0/result.json")
    again = command("lm.train", *words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "trial 1 was left unfinished and goes on" in again.stdout
    assert "resumed from step_" in (root / "1/train.log").read_text()
    assert states(root) == ["COMPLETE"] * 4
    assert [t.params for t in trials(root)][:2] == params
    assert {t.params["model.n_layer"] for t in trials(root)} <= {1, 2}
    assert again.stdout.count("  importance ") == 2
    assert files.read_json(root / "0/result.json") == first


@pytest.mark.slow
def test_a_mistake_in_a_search_is_one_line_before_any_trial(command, tiny, tmp_path):
    for word, message in (
        ("model.n_layr=range(1,3)", "did you mean model.n_layer?"),
        ("optimizer.lr=interval(-1,1)", "optimizer.lr=-1"),
        ("hydra.sweeper.sampler=cmaes", "choose tpe or random or grid"),
    ):
        done = command("lm.train", *TUNE, *tiny, "optimizer.lr=interval(0,1)", word)
        assert message in done.stdout + done.stderr and done.returncode in (1, 2)
        assert "Traceback" not in done.stdout + done.stderr
        assert not (tmp_path / "outputs/tune").exists()
