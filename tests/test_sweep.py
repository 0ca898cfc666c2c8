"""Sweeps: seeds are folded, a failed arm harms no other, and the same command goes on."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from lm import config
from lm.launch import compose, jobs, main, preflight
from lm.settings import read_yaml
from lm.sweep import ranking, space, study, tuner
from lm.sweep.space import TunerConfig, load_optuna
from lm.system import files
from lm.system.errors import ConfigError, LockedError, Pruned
from tests.helpers import TINY_TRANSFORMER, inspected, offline_runs


def results(*arms: tuple) -> dict[str, ranking.ArmResult]:
    """results((1.0, "a=1"), (None, "a=2")): arms 0 and 1 of a sweep, the second one failed."""
    made = {}
    for number, (value, *words) in enumerate(arms):
        status = "failed" if value is None else "ok"
        made[str(number)] = ranking.ArmResult(words, status, value, None)
    return made


# ------------------------------------------------------------------------------------- folding


def test_seeds_fold_into_mean_spread_and_count():
    rows = ranking.fold(
        results(
            (1.0, "model=gru", "seed=0"),
            (2.0, "model=gru", "seed=1"),
            (3.0, "model=gru", "seed=2"),
            (1.5, "model=mlp", "seed=0"),
        )
    )
    assert [(r.settings, r.mean, r.spread, r.n) for r in rows] == [
        (["model=mlp"], 1.5, None, 1),
        (["model=gru"], 2.0, 1.0, 3),
    ]


def test_a_failed_seed_counts_neither_as_value_nor_as_zero():
    rows = ranking.fold(results((4.0, "seed=0"), (None, "seed=1")))
    assert (rows[0].mean, rows[0].spread, rows[0].n, rows[0].failed) == (4.0, None, 1, 1)
    assert ranking.table(rows).splitlines() == [
        "  val/bpb      +-   n  settings (and its arms)",
        "   4.0000           1  all settings the same (0 1, 1 failed)",
    ]


def test_settings_that_every_arm_shares_are_not_repeated():
    rows = ranking.fold(results((1.0, "track=off", "a=1"), (2.0, "track=off", "a=2")))
    assert [r.settings for r in rows] == [["a=1"], ["a=2"]]


def test_a_damaged_result_is_named_in_one_line_and_the_others_are_ranked(tmp_path, caplog):
    for n, text in enumerate(['{"value": 1.5, "new": 0}', '{"value": "low"}', "{", "[" * 9999]):
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / ranking.RESULT).write_text(text)
    assert list(ranking.read(tmp_path)) == ["0"]
    assert len(caplog.messages) == 3 and "\n" not in "".join(caplog.messages)
    assert "1/result.json is not what was written: Expected `float | null`" in caplog.text


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), max_size=8))
def test_the_mean_lies_between_the_smallest_and_the_largest_value(values):
    mean, spread = ranking.mean_and_spread([*values, float("nan"), float("inf")])
    if values:
        assert min(values) - 1e-6 <= mean <= max(values) + 1e-6
    assert (mean is None) == (not values) and (spread is None) == (len(values) < 2)


def test_arms_are_listed_in_the_order_of_their_numbers(tmp_path):
    for n in range(11):
        folder = tmp_path / str(n)
        folder.mkdir()
        record = {"overrides": ["a=1"], "status": "ok", "value": 1.0, "error": None}
        (folder / "result.json").write_text(json.dumps(record))
    assert list(ranking.read(tmp_path)) == [str(n) for n in range(11)]


# --------------------------------------------------------------------------------------- grids


@pytest.mark.slow
def test_a_grid_with_a_failing_arm_ranks_the_others_and_the_same_command_redoes_it(
    command, tiny, tmp_path
):
    """The second learning rate overflows: exit code 1, and its arms alone run again."""
    words = ["-m", *tiny, *TINY_TRANSFORMER, "hydra.sweep.dir=outputs/sweeps/day/s"]
    words += ["optimizer.lr=1e-3,1e30", "seed=0,1"]
    first = command("lm.train", *words)
    root = tmp_path / "outputs/sweeps/day/s"
    summary = json.loads((root / "summary.json").read_text())
    assert first.returncode == 1, first.stderr
    assert [(r["n"], r["failed"]) for r in summary["ranking"]] == [(2, 0), (0, 2)]
    assert summary["ranking"][0]["settings"] == ["optimizer.lr=0.001"]
    assert "2 of 4 arms failed" in first.stdout and "lower optimizer.lr" in first.stdout.lower()
    assert "Traceback" in (root / "2/error.log").read_text()
    before = {n: (root / n / "metrics.jsonl").read_bytes() for n in "01"}
    stamps = {n: (root / n / "summary.json").stat().st_mtime_ns for n in "01"}

    again = command("lm.train", *words)
    assert again.returncode == 1
    assert again.stdout.count("is already complete") == 2
    assert {n: (root / n / "metrics.jsonl").read_bytes() for n in "01"} == before
    assert {n: (root / n / "summary.json").stat().st_mtime_ns for n in "01"} == stamps
    assert again.stdout.count("/2 failed: ") == again.stdout.count("/3 failed: ") == 1


@pytest.mark.slow
def test_an_arm_that_was_killed_goes_on_and_gives_what_it_would_have_given(command, tiny, tmp_path):
    words = ["-m", *tiny, *TINY_TRANSFORMER, "seed=0,1"]
    whole = command("lm.train", *words, "hydra.sweep.dir=outputs/whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    cut = command("lm.train", *words, "hydra.sweep.dir=outputs/cut")
    assert cut.returncode == 0
    # What a kill after step 10 leaves: no result, no summary, the older checkpoint.
    arm = tmp_path / "outputs/cut/1"
    (arm / "result.json").unlink()
    (arm / "summary.json").unlink()
    for path in sorted((arm / "checkpoints/step_000020").iterdir()):
        path.unlink()
    (arm / "checkpoints/step_000020").rmdir()
    again = command("lm.train", *words, "hydra.sweep.dir=outputs/cut")
    assert again.returncode == 0 and "resumed from step_000010" in again.stdout
    assert again.stdout.count("is already complete") == 1

    def scores(name: str) -> list[float]:
        return [r.value for r in ranking.read(tmp_path / "outputs" / name).values()]

    assert scores("cut") == scores("whole")


@pytest.mark.slow
def test_a_mistake_in_one_arm_of_a_grid_is_told_before_any_arm_starts(command, tiny, tmp_path):
    done = command("lm.train", "-m", *tiny, "model=transformer,ngram", "model.n_layer=1")
    assert done.returncode == 2
    assert "unknown setting model.n_layer" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "outputs/sweeps").exists()


@pytest.mark.slow
def test_a_sweep_over_models_is_one_directory_and_one_group_and_each_arm_as_if_alone(
    command, tiny, tmp_path
):
    """A directory named after what varies falls into several, and so does the group; what one arm
    left in the process (generators, settings of torch, a W&B run) would reach the next one."""
    words = [w for w in tiny if w != "track=off"]
    done = command(
        "lm.train", "-m", *words, "track=offline", "model=glob(bi*)", "name=${model.name}"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "multirun").exists() and not (tmp_path / "wandb").exists()
    (root,) = (tmp_path / "outputs/sweeps").glob("*/*")
    assert {p.name for p in root.iterdir() if p.is_dir()} == {"0", "1"}
    group = "-".join(root.parts[-2:])
    seen = {}
    for folder in offline_runs():
        runs = [r["run"] for r in inspected(folder) if r["type"] == "run"]
        seen[runs[0]["run_id"]] = runs[0]["run_group"]
    ids = {files.read_json(root / n / "wandb.json")["id"] for n in "01"}
    assert seen == dict.fromkeys(ids, group) and len(ids) == 2
    alone = command("lm.train", *tiny, "model=bigram", "hydra.run.dir=alone")
    assert alone.returncode == 0, alone.stderr
    (arm,) = (n for n in "01" if read_yaml(root / n / config.RESOLVED)["name"] == "bigram")
    weights = [p / "checkpoints/step_000020/model.safetensors" for p in (root / arm, Path("alone"))]
    assert weights[0].read_bytes() == weights[1].read_bytes()


# --------------------------------------------------------------------------------------- tuning

# Models that only count take a blink: their one setting is as good to search as any other.
COUNTS = ("model=bigram_counts", "model.add_k=tag(log, interval(1e-3,1e3))")
TUNE = ("-m", "hydra/sweeper=lm", "hydra.sweep.dir=outputs/tune", "hydra.sweeper.n_startup=4")


def search_space(*words, **params):
    return space.search_space(OverridesParser.create(), params, words)


def trials(root: Path) -> list:
    return study.open_study(root).trials


def states(root: Path) -> list[str]:
    return [t.state.name for t in trials(root)]


def new_study(root: Path, **about) -> object:
    root.mkdir(parents=True, exist_ok=True)
    record = {"journal": "optuna.journal", "study": "lm", "pruner": "none", "warmup": 0} | about
    (root / study.STUDY).write_text(json.dumps(record))
    return study.open_study(root)


def test_hydra_s_grammar_becomes_optuna_s_distributions():
    d = pytest.importorskip("optuna").distributions
    fixed, found = search_space(
        "optimizer.lr=tag(log, interval(1e-4,3e-2))",
        "model.n_layer=range(2,6)",
        "model.n_embd=range(16,65,16)",
        "model.context_len=int(interval(8,32))",
        "model.norm=rmsnorm,layernorm",
        "train.steps=5",
        "~experiment",
        "+track.tags=[a,b]",
    )
    assert found == {
        "optimizer.lr": d.FloatDistribution(1e-4, 3e-2, log=True),
        "model.n_layer": d.IntDistribution(2, 5),
        "model.n_embd": d.IntDistribution(16, 64, step=16),
        "model.context_len": d.IntDistribution(8, 32),
        "model.norm": d.CategoricalDistribution(("rmsnorm", "layernorm")),
    }
    assert fixed == ["train.steps=5", "~experiment", "+track.tags=[a,b]"]


def test_the_command_line_wins_over_the_file_s_settings_to_search():
    fixed, found = search_space("a=1", a="1,2", b="3,4")
    assert fixed == ["a=1"] and list(found) == ["b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["seed=0,1,2"], "a seed is not tuned"), (["train.steps=3"], "nothing to tune")],
)
def test_a_search_that_cannot_be_is_refused_with_the_way_out(words, message):
    with pytest.raises(ConfigError, match=message):
        search_space(*words)


def test_a_grid_s_points_are_queued_once(tmp_path):
    there = new_study(tmp_path)
    _, found = search_space("a=1,2,3", "b=range(0,2)")
    assert tuner.enqueue_grid(there, found) == tuner.enqueue_grid(there, found) == 6
    points = [there.ask(found).params for _ in range(6)]
    assert len({tuple(p.items()) for p in points}) == 6
    with pytest.raises(ConfigError, match="sampler=grid takes"):
        tuner.enqueue_grid(there, search_space("a=interval(0,1)")[1])


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


def test_a_search_without_a_complete_trial_says_so_and_names_no_best_one(tmp_path, caplog):
    caplog.set_level("INFO")
    there = new_study(tmp_path)
    trial = there.ask(search_space("a=interval(0.0,1.0)")[1])
    tuner.record_trial(there, trial, tmp_path)
    tuner.conclude(there, tmp_path)
    assert "no trial of 1 is complete" in caplog.text
    assert read_yaml(tmp_path / "optimization_results.yaml") == {"fail": 1}


def test_a_search_without_optuna_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install 'lm\[sweep\]'"):
        preflight.check(["-m", "hydra/sweeper=lm", "optimizer.lr=interval(0,1)"])


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


def test_outside_a_study_nothing_is_reported(tmp_path):
    assert study.reporter(None, tmp_path) is None
    assert study.reporter(tmp_path, tmp_path / "0") is None
    new_study(tmp_path)
    assert study.reporter(tmp_path, tmp_path / "0") is None


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_finds_a_good_setting_and_says_what_mattered(command, tiny, tmp_path, sampler):
    done = command(
        "lm.train",
        *TUNE,
        *tiny,
        *COUNTS,
        "hydra.sweeper.n_trials=10",
        f"hydra.sweeper.sampler={sampler}",
    )
    root = tmp_path / "outputs/tune"
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(root) == ["COMPLETE"] * 10
    results = read_yaml(root / "optimization_results.yaml")
    values = [t.value for t in trials(root)]
    assert results["best_value"] == min(values) < statistics.median(values)
    assert results["importance"] == {"model.add_k": 1.0}
    rows = [json.loads(r) for r in (root / "trials.jsonl").read_text().splitlines()]
    assert [r["trial"] for r in rows] == list(range(10))
    assert "best of 10 trials" in done.stdout and (root / "multirun.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
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


@pytest.mark.slow
def test_three_processes_share_one_study_and_none_does_a_trial_twice(tiny, tmp_path):
    words = [*TUNE, *tiny, *COUNTS, "hydra.sweeper.n_trials=12"]
    repository = str(compose.folder("conf").parent)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "lm.train", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": repository},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(3)
    ]
    said = [p.communicate(timeout=240)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0], said
    root = tmp_path / "outputs/tune"
    assert states(root) == ["COMPLETE"] * 12
    assert len({t.params["model.add_k"] for t in trials(root)}) == 12
    rows = [json.loads(r)["trial"] for r in (root / "trials.jsonl").read_text().splitlines()]
    assert sorted(rows) == list(range(12))


@pytest.mark.slow
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
    process = subprocess.Popen(
        [sys.executable, "-m", "lm.train", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(compose.folder("conf").parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
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
    assert "resumed from step_" in again.stdout
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


@pytest.mark.faults
def test_a_failing_arm_costs_no_later_batch_of_a_grid(command, tiny, tmp_path):
    """With hydra.sweeper.max_batch_size=1 Hydra drops all that comes after a failure."""
    words = [
        "optimizer.lr=1e30,1e-3",
        "hydra.sweeper.max_batch_size=1",
        "hydra.sweep.dir=outputs/s",
    ]
    done = command("lm.train", "-m", *tiny, *TINY_TRANSFORMER, *words)
    assert done.returncode == 1 and "1 of 2 arms failed" in done.stdout
    assert [a.status for a in ranking.read(tmp_path / "outputs/s").values()] == ["ok", "failed"]


@pytest.mark.faults
def test_a_run_s_own_hydra_files_repeat_it(command, tiny, tmp_path):
    assert command("lm.train", *tiny, *TINY_TRANSFORMER, "hydra.run.dir=a").returncode == 0
    words = ["--config-path", str(tmp_path / "a/.hydra"), "--config-name", "config"]
    again = command("lm.train", *words, "hydra.run.dir=b")
    assert again.returncode == 0, again.stderr
    weights = [next((tmp_path / r).rglob("step_000020/model.safetensors")) for r in "ab"]
    assert weights[0].read_bytes() == weights[1].read_bytes()


# ------------------------------------------------------------------------------------- launchers

MINE = """
from dataclasses import dataclass
from typing import ClassVar
from lm.config import ModelConfig

@dataclass
class MineConfig(ModelConfig):
    builds: ClassVar[str] = "lm.models.bigram_counts:BigramCounts"
    name: str = "mine"
    add_k: float = 1.0
"""


@pytest.mark.faults
def test_a_preempted_job_is_queued_again_and_goes_on_in_its_own_directory(command, tiny, tmp_path):
    """Slurm sends SIGUSR2 before it takes a machine away; submitit's own queue does the same."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", *tiny]
    words += [*TINY_TRANSFORMER, "train.steps=2500", "train.save_every=100", "train.eval_every=0"]
    words += ["train.sample_every=0", "hydra.sweep.dir=outputs/s", "seed=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lm.train", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(compose.folder("conf").parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    arm = tmp_path / "outputs/s/0"
    deadline = time.monotonic() + 120
    while not (arm / "checkpoints/step_000100").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    job = subprocess.run(
        ["pgrep", "-f", f"submitit.core._submit {tmp_path}"], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(job[0]), signal.SIGUSR2)
    assert process.wait(timeout=180) == 0
    assert files.read_json(arm / "summary.json")["step"] == 2500
    said = "".join(p.read_text() for p in (tmp_path / "outputs/s").rglob("*_log.out"))
    assert "resumed from step_" in said


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "submitit_local"])
def test_a_launcher_runs_the_arms_in_processes_that_share_the_cores(
    command, tiny, tmp_path, launcher
):
    pytest.importorskip(
        f"hydra_plugins.hydra_{'joblib' if launcher == 'local' else 'submitit'}_launcher"
    )
    """Also a model of one's own, from a directory that no process looks into by itself."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "conf/model").mkdir(parents=True)
    yaml = "defaults: [{/schema/model@_here_: mine}, _self_]\n"
    (tmp_path / "conf/model/mine.yaml").write_text(yaml)
    words = [w for w in tiny if not w.startswith("train.threads")]
    done = command(
        "lm.train",
        "-m",
        "import=mine",
        "--config-dir",
        "conf",
        f"hydra/launcher={launcher}",
        "hydra.sweep.dir=outputs/l",
        *words,
        "model=mine",
        "seed=0,1,2",
        PYTHONSAFEPATH="1",
    )
    root = tmp_path / "outputs/l"
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = files.read_json(root / "summary.json")["ranking"]
    assert (row["n"], row["spread"]) == (3, 0.0)
    if launcher == "local":
        import joblib  # which counts the cores that this process may use

        threads = {files.read_json(p)["threads"] for p in root.glob("*/code.json")}
        assert threads == {max(1, joblib.cpu_count() // 2)}


def test_the_slurm_preset_asks_to_be_queued_again(cfg):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    from hydra import compose as hydra_compose

    with compose.composing():
        whole = hydra_compose(
            "config", overrides=["hydra/launcher=slurm"], return_hydra_config=True
        )
    assert whole.hydra.launcher.max_num_timeout > 0
    assert whole.hydra.launcher._target_.endswith("SlurmLauncher")


def test_the_command_of_the_wandb_sweep_is_one_that_lm_train_takes(cfg):
    from wandb.sdk.launch.sweeps import utils

    sweep = read_yaml(compose.folder("experiments") / "wandb_sweep.yaml")
    chosen = {}
    for key, rule in sweep["parameters"].items():
        value = rule.get("value", rule.get("min", (rule.get("values") or [None])[-1]))
        chosen[key] = {"value": value}
    words = utils.create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    loaded = cfg(*words)
    assert loaded.track.mode == "online" and loaded.model.n_layer == 6
    assert sweep["metric"] == {"name": "val/bpb", "goal": "minimize"}
    assert sweep["command"][1:] == ["python", "-m", "lm.train", "${args_no_hyphens}"]


@pytest.mark.parametrize(
    ("words", "differ"),
    [
        (
            "seed=0,1,2 optimizer.lr=1,2",
            "s/2 is an arm of another sweep: .*seed is 0 there and 2 here",
        ),
        ("seed=0,1 optimizer.lr=1,2 train.steps=9", "train.steps is 1000 there and 9 here"),
    ],
)
def test_a_sweep_s_directory_takes_no_other_sweep(words, differ, cfg, tmp_path):
    """Its arms have their place by their number: the results of one would stand for another's."""
    here = ("-m", "hydra.sweep.dir=s")
    for number, (lr, seed) in enumerate([(1, 0), (1, 1), (2, 0), (2, 1)]):
        (tmp_path / f"s/{number}").mkdir(parents=True)
        made = cfg(f"seed={seed}", f"optimizer.lr={lr}")
        config.save(made, tmp_path / f"s/{number}" / config.RESOLVED)
    preflight.check([*here, "optimizer.lr=1,2", "seed=0,1"])
    with pytest.raises(ConfigError, match=differ):
        preflight.check([*here, *reversed(words.split())])


def test_an_arm_that_was_made_longer_keeps_its_sweep_from_nothing(cfg, tmp_path):
    here = ["-m", "hydra.sweep.dir=new", "hydra.sweep.dir=s", "seed=0,1", "train.steps=6"]
    for number, steps in enumerate([9, 6]):
        (tmp_path / f"s/{number}").mkdir(parents=True)
        made = cfg(f"seed={number}", f"train.steps={steps}")
        config.save(made, tmp_path / f"s/{number}" / config.RESOLVED)
    with pytest.raises(ConfigError, match="9 there and 6 here"):
        preflight.check(here)
    code = tmp_path / "s/0/code.json"
    code.write_text('{"extended": [6]}')
    preflight.check(here)
    before = (tmp_path / "s/0" / config.RESOLVED).read_text()
    jobs.claim(jobs.Job(cfg("train.steps=6"), tmp_path / "s/0", [], sweep=tmp_path / "s"))
    assert (tmp_path / "s/0" / config.RESOLVED).read_text() == before


def test_a_run_stopped_on_its_way_and_given_another_end_says_so(cfg, tmp_path):
    (tmp_path / "checkpoints/step_000203").mkdir(parents=True)
    (tmp_path / "code.json").write_text("{}")
    config.save(cfg("train.steps=2000"), tmp_path / config.RESOLVED)
    for words in (("train.steps=50",), ("train.tokens=2000",)):
        with pytest.raises(ConfigError, match=f"{words[0]} ends before step 203"):
            jobs.claim(jobs.Job(cfg(*words), tmp_path, []))
    jobs.claim(jobs.Job(cfg("train.steps=3000"), tmp_path, []))
    jobs.claim(jobs.Job(cfg("train.steps=4000"), tmp_path, []))
    assert files.read_json(tmp_path / "code.json")["extended"] == [203]


def test_a_grid_is_refused_in_the_directory_of_a_search(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / study.STUDY).write_text("{}")
    with pytest.raises(ConfigError, match="s holds a search, which hydra/sweeper=lm"):
        preflight.check(["-m", "hydra.sweep.dir=s", "seed=0,1"])


def test_an_arm_that_another_process_trains_is_left_to_it(cfg, tmp_path):
    job = jobs.Job(cfg("track=off"), tmp_path, [], sweep=tmp_path)
    (tmp_path / ranking.RESULT).write_text("theirs")

    def held(job):
        raise LockedError("it is being written by process 1")

    assert main.run_arm(held, job) == float("inf")
    assert (tmp_path / ranking.RESULT).read_text() == "theirs"


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
