"""What a view of W&B has in it, as the JSON that W&B stores: built without a server."""

import json

import pytest

pytest.importorskip("wandb_workspaces")
from lm.dashboard import report, view
from lm.record.wandb_project import ProjectRun
from tests.helpers import ROOT


def run(uid: str, score: float = 2.5, keys: tuple[str, ...] = (), **settings) -> ProjectRun:
    values = {"model.name": "gru", "optimizer.lr": 0.01, "seed": 0, "track.notes": uid}
    summary = {"bpb/val": {"min": score}, "best_val_bpb": score} | dict.fromkeys(keys, 1.0)
    baselines = {"baseline/unigram_bpb": 3.5, "baseline/ngram_bpb": 1.25}
    settings = values | {key.replace("__", "."): value for key, value in settings.items()}
    return ProjectRun(uid, f"gru {uid}", "", "finished", settings, baselines, summary)


RUNS = [
    run("a", optimizer__lr=0.01, model__n_hidden=8),
    run("b", optimizer__lr=0.03, model__n_hidden=8),
    run("c", optimizer__lr=0.03, model__name="mlp", model__n_hidden=16),
    run("d", optimizer__lr=0.03, model__name="mlp", model__n_hidden=16, seed=1),
]


def spec(runs=RUNS, group="") -> dict:
    """What W&B is given, after its own checks of the form."""
    made = view.build("me/lm", runs, group, runs[0])
    return made._model.spec.model_dump(by_alias=True, exclude_none=True)["section"]


def panels(runs=RUNS) -> dict[str, list[dict]]:
    """The panels by their section, in order."""
    sections = spec(runs)["panelBankConfig"]["sections"]
    assert all(section["isOpen"] for section in sections)
    return {section["name"]: section["panels"] for section in sections}


def test_what_matters_comes_first():
    everything = [*RUNS, run("e", keys=("texts", "views/lens", "task/agreement", "bpb/other"))]
    assert list(panels(everything)) == [
        "bits per byte", "loss", "training", "what was varied", "right and wrong sentences",
        "samples", "lens", "settings side by side",
    ]  # fmt: skip
    assert "samples" not in panels() and "what was varied" not in panels(RUNS[:1])


def test_the_baselines_are_lines_beside_the_curve_of_bits_per_byte():
    (scores,) = panels()["bits per byte"]
    assert scores["config"]["xAxis"] == "tokens" and scores["config"]["metrics"] == ["bpb/val"]
    assert scores["config"]["expressions"] == [
        "${bpb/val}",
        "${bpb/val} * 0 + ${config:baseline/unigram_bpb}",
        "${bpb/val} * 0 + ${config:baseline/ngram_bpb}",
    ]
    assert "5-gram counts" in scores["config"]["chartTitle"]
    (loss,) = panels()["loss"]
    assert loss["config"]["metrics"] == ["loss/train", "loss/val"]
    metrics = [panel["config"]["metrics"] for panel in panels()["training"]]
    assert metrics == [["optim/lr"], ["optim/grad_norm"], ["speed/tokens_per_s"]]


def test_what_was_varied_are_the_settings_that_tell_runs_apart():
    """A model's own settings go with its name, and track.* changes nothing."""
    assert view.varied(RUNS) == ["model.name", "optimizer.lr", "seed"]
    parallel, importance = panels()["what was varied"]
    columns = [column["accessor"] for column in parallel["config"]["columns"]]
    assert columns == [
        "config:model.name.value", "config:optimizer.lr.value", "config:seed.value",
        "summary:best_val_bpb",
    ]  # fmt: skip
    assert parallel["config"]["columns"][1]["log"] is True
    assert importance["config"]["targetKey"] == "best_val_bpb"


def test_the_table_of_runs_begins_with_the_best_and_has_the_columns_that_tell_why():
    (runs,) = spec()["runSets"]
    order = runs["runFeed"]["columnOrder"]
    assert order[:3] == [
        "run:displayName", "summary:bpb/val.min", "config:baseline/ngram_bpb.value",
    ]  # fmt: skip
    assert "config:optimizer.lr.value" in order and runs["runFeed"]["columnPinned"][order[1]]
    assert runs["sort"]["keys"] == [
        {"key": {"section": "summary", "name": "bpb/val.min"}, "ascending": True}
    ]
    assert runs["baselineRunId"] in runs["pinnedRunIds"]


def test_a_sweep_s_view_has_its_runs_alone_and_a_name_that_w_and_b_takes():
    made = view.build("me/lm", RUNS, "sweeps-a=b 🙂", RUNS[0])
    assert made.name == "lm sweeps-a-b -"
    (runs,) = spec(group="sweeps-a=b 🙂")["runSets"]
    assert "sweeps-a=b 🙂" in json.dumps(runs["filters"], ensure_ascii=False)
    again = view.build("me/lm", RUNS[:2], "sweeps-a=b 🙂", RUNS[1])
    other = view.build("me/lm", RUNS, "", RUNS[0])
    assert again._internal_name == made._internal_name != other._internal_name


def test_an_experiment_s_report_has_its_readme_and_the_curves_of_its_runs():
    folder = ROOT / "experiments/001_model_ladder"
    runs = [run(uid, name=folder.name, optimizer__lr=lr) for uid, lr in (("a", 0.1), ("b", 0.2))]
    made = report.build("me/lm", folder, runs)
    assert made.title == folder.name and "at the same number of training tokens" in made.description
    blocks = made._to_model().spec.model_dump(by_alias=True, exclude_none=True)["blocks"]
    text = json.dumps(blocks)
    assert "| transformer |" in text and "## Question" in text
    assert "<!--" not in text and "curves.svg" not in text and "# 001_model_ladder" not in text
    assert "${config:baseline/ngram_bpb}" in text and "config:optimizer.lr.value" in text
    for name in ("bits per byte", "loss", "what was varied"):  # as the view has them
        assert json.dumps(panels(runs)[name][0]["config"]) in text
    assert '"001_model_ladder"' in text[text.index("filters") :]
