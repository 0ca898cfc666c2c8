"""Runs are folded by seed and named by what sets them apart."""

import json
import os
import time
from pathlib import Path

import pytest

from lm.report import folding, page, records
from lm.sweep import ranking
from lm.sweep.arms import ArmResult


def test_arms_fold_seeds_and_are_named_by_what_sets_them_apart(three_arms):
    arms = folding.fold_seeds(three_arms)
    assert {a.label: (round(a.mean, 6), round(a.spread, 6), a.n) for a in arms} == {
        "gru": (2.01, 0.01, 3),
        "mlp": (2.51, 0.01, 3),
        "transformer": (1.51, 0.01, 3),
    }


def test_arms_made_without_a_sweep_are_named_by_their_settings(fake_run):
    for i, lr in enumerate(("0.001", "0.01")):
        path = fake_run(f"outputs/runs/d/{i}x", f"optimizer.lr={lr}")
        (path / ".hydra/overrides.yaml").unlink()
    labels = {a.label for a in folding.fold_seeds(records.find([Path("outputs")]))}
    assert labels == {"lr=0.001", "lr=0.01"}


ARMS = {  # the words of several runs of one text, and what these runs are called
    # A transformer of which only the steps were typed was called `steps=500` beside `gru`.
    ("train.steps=500", "model=gru train.steps=500"): {"transformer", "gru"},
    # A value that is the default is one for the run that did not name it, too.
    ("optimizer.lr=0.05", ""): {"lr=0.05", "lr=0.03"},
    ("model=transformer seed=1", "model=gru"): {"transformer", "gru"},
    ("model=transformer optimizer.lr=0.03", "optimizer.lr=0.01"): {"lr=0.03", "lr=0.01"},
    # Of a model without layers there is nothing to say of layers.
    ("model=bigram", "model.n_layer=2"): {"bigram", "transformer n_layer=2"},
    # All that was varied counts, and not as little as tells the runs apart.
    (
        "model=gru optimizer.lr=0.01 optimizer.weight_decay=0.2",
        "optimizer.lr=0.003 model=gru",
    ): {"lr=0.01 weight_decay=0.2", "lr=0.003 weight_decay=0"},
    # How often a run is scored is told only where nothing else tells runs apart.
    ("train.eval_every=5", "train.eval_every=10 model=gru"): {"transformer", "gru"},
    ("train.eval_every=5", "train.eval_every=10"): {"eval_every=5", "eval_every=10"},
    # Presets of one model are known by the words alone.
    ("model=gpt2", "model=llama"): {"gpt2", "llama"},
}


@pytest.mark.parametrize("words", ARMS)
def test_an_arm_is_called_by_its_settings_and_not_by_the_words_that_were_typed(words, fake_run):
    for i, line in enumerate(words):
        fake_run(f"outputs/runs/d/{i}", *line.split())
    arms = folding.fold_seeds(records.find([Path("outputs")]))
    assert {arm.label for arm in arms} == ARMS[words]


def test_arms_of_several_experiments_say_which_one_they_are_of(fake_run):
    """Beside `n_embd=32`, an arm called `muon` said nothing of its size; 800_000 read 8e+05."""
    for i, n in enumerate((100_000, 800_000)):
        fake_run(f"outputs/sweeps/a/s/{i}", "name=003_law", f"train.tokens={n}")
    fake_run("outputs/sweeps/b/s/0", "name=003_law_held_out", "train.tokens=1_600_000")
    fake_run("outputs/sweeps/c/s/0", "name=004_optimizers", "optimizer=muon")
    fake_run("outputs/runs/d/r", "model=gru")
    found = {a.label for a in folding.fold_seeds(records.find([Path("outputs")]))}
    assert found == {
        "003 tokens=100000",
        "003 tokens=800000",
        "003 tokens=1600000",
        "004 transformer",
        "gru",
    }


def test_the_baseline_of_several_tokenizers_is_the_lowest_and_names_its_own(fake_run, monkeypatch):
    fake_run("outputs/runs/d/a", tokenizer="t1")
    fake_run("outputs/runs/d/b", "tokenizer=byte", tokenizer="t2")
    reached = {"t1": {"5-gram counts": 2.0}, "t2": {"5-gram counts": 1.5}}
    monkeypatch.setattr(records.Record, "baselines", lambda run: reached[run.tokenizer])
    runs = records.find([Path("outputs")])
    assert folding.baselines(runs) == {"5-gram counts, byte 10": 1.5}
    assert folding.baselines(runs[:1]) == {"5-gram counts": 2.0}


def test_a_run_repeated_with_the_same_seed_counts_once(fake_run):
    for name, score in (("a", 3.0), ("b", 2.0)):
        path = fake_run(f"outputs/runs/d/{name}", "seed=1", scores=(8.0, score))
        os.utime(path / "metrics.jsonl", (time.time(), 1000 if name == "a" else 2000))
    (arm,) = folding.fold_seeds(records.find([Path("outputs")]))
    assert (arm.n, arm.mean) == (1, 2.0)


def test_by_folds_all_that_is_not_named(fake_run):
    for i, (model, lr) in enumerate([("gru", 0.1), ("gru", 0.2), ("mlp", 0.1)]):
        fake_run(f"outputs/runs/d/{i}", f"model={model}", f"optimizer.lr={lr}")
    arms = folding.fold_seeds(records.find([Path("outputs")]), ["model"])
    assert {a.label: a.n for a in arms} == {"gru": 2, "mlp": 1}


def test_a_run_that_was_made_longer_is_not_the_one_that_was_so_long_from_the_start(fake_run):
    fake_run("outputs/runs/d/fresh", "train.steps=20", scores=(8.0, 3.0, 2.2))
    longer = fake_run("outputs/runs/d/longer", "train.steps=20", scores=(8.0, 3.0, 2.0))
    code = json.loads((longer / "code.json").read_text()) | {"extended": [10]}
    (longer / "code.json").write_text(json.dumps(code))
    both = folding.fold_seeds(records.find([Path("outputs")]))
    assert [arm.n for arm in both] == [1, 1] and len({arm.label for arm in both}) == 2


def test_runs_are_grouped_by_a_setting_of_no_group(fake_run):
    for i, name in enumerate(["a", "b"]):
        fake_run(f"outputs/runs/d/{i}", f"name={name}")
    assert len(folding.fold_seeds(records.find([Path("outputs")]), by=["name"])) == 2


def test_runs_that_differ_only_in_what_affects_nothing_are_one_arm(fake_run):
    fake_run("outputs/runs/d/0", "train.dist_timeout=60", "seed=0")
    fake_run("outputs/runs/d/1", "train.dist_timeout=90", "train.keep_last=4", "seed=1")
    fake_run("outputs/runs/d/2", "track.tags=[x]", "train.log_every=3", "seed=2")
    (arm,) = folding.fold_seeds(records.find([Path("outputs")]))
    assert arm.n == 3
    fake_run("outputs/runs/d/3", "train.dtype=float32")
    assert len(folding.fold_seeds(records.find([Path("outputs")]))) == 2
    fake_run(
        "outputs/runs/d/4", "train.compile=on"
    )  # its speed is to be compared, if not its score
    assert len(folding.fold_seeds(records.find([Path("outputs")]))) == 3


def test_a_column_is_one_entry_that_sweep_and_report_show(three_arms, monkeypatch):
    """A column was written in up to five places."""
    seconds = ranking.Column("seconds", 9, lambda row: f"{sum(e.seconds for e in row.ends):.1f}")
    monkeypatch.setattr(ranking, "COLUMNS", [*ranking.COLUMNS[:2], seconds, *ranking.COLUMNS[2:]])
    (text,) = folding.rank(folding.fold_seeds(three_arms))
    reported = page.table(text, {"5-gram": 2.25}).splitlines()[1:]
    results = {}
    for run in three_arms:
        model = run.settings["model.name"]
        results[run.path.name] = ArmResult([f"model={model}"], value=run.score)
    swept = ranking.table(ranking.fold(results, three_arms[0].path.parent)).splitlines()
    for lines in (reported, swept):
        assert lines[0].split()[:4] == ["val/bpb", "+-", "seconds", "n"]
        assert [line.split()[2:4] for line in lines[1:4]] == [["6.0", "3"]] * 3
    assert reported[4].index("(5-gram)") == reported[0].index("pydocs") == 34
