"""WANDB_* variables count where track.* stands at its default, and one line says so."""

import os

import pytest

from lm.record import wandb_init, wandb_mode

VARIABLES = {
    "WANDB_PROJECT": "theirs",
    "WANDB_ENTITY": "team",
    "WANDB_NOTES": "why\nnot",
    "WANDB_TAGS": "a,, b ,a," + "x" * 65,
    "WANDB_NAME": "first",
    "WANDB_RUN_GROUP": "night",
    "WANDB_JOB_TYPE": "probe",
}


@pytest.mark.parametrize(
    ("words", "group", "changed"),
    [
        ((), None, {}),
        ((), "a-sweep", {"name": "first gru lr=0.1"}),
        (("track.project=mine",), None, {"project": "mine"}),
        (("track.entity=me", "track.notes=mine"), None, {"entity": "me", "notes": "mine"}),
        (("track.tags=[t]", "track.name=n"), None, {"tags": ["t"], "name": "n"}),
        (("track.name=n",), "a-sweep", {"name": "n gru lr=0.1"}),
    ],
)
def test_variables_of_w_and_b_count_where_the_setting_is_the_default(
    cfg, monkeypatch, words, group, changed
):
    for name, text in VARIABLES.items():
        monkeypatch.setenv(name, text)
    wandb_mode.tidy_environment()
    found, line = wandb_init.init_arguments(cfg(*words), group, "gru lr=0.1")
    expected = {
        "project": "theirs",
        "entity": "team",
        "notes": "why\nnot",
        "tags": ["a", "b"],
        "name": "first",
        "group": "night",
        "job_type": "probe",
    } | changed
    assert {key: found[key] for key in expected} == expected
    assert "\n" not in line and "WANDB_DIR (its files are under outputs/wandb)" in line
    for key, name in [("project", "WANDB_PROJECT"), ("entity", "WANDB_ENTITY")]:
        won = key not in changed
        assert (f"{key}={VARIABLES[name]}" in line) == won
        assert (f"{name} (track.{key}={changed.get(key)})" in line) != won


def test_a_run_without_variables_is_described_by_its_settings_alone(cfg, monkeypatch):
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.setenv("WANDB_PROJECT", " ")
    monkeypatch.setenv("WANDB_TAGS", ",")
    wandb_mode.tidy_environment()
    found, line = wandb_init.init_arguments(cfg(), None)
    assert (found["project"], found["name"], found["tags"]) == ("lm", "transformer", [])
    assert line == "" and "WANDB_TAGS" not in os.environ


@pytest.mark.parametrize(
    ("words", "group", "name"),
    [
        ((), None, "gru lr=0.1"),
        (("name=004_muon",), None, "004_muon gru lr=0.1"),
        (("name=004_muon",), "experiments-004_muon", "gru lr=0.1"),
        (("track.name=mine",), None, "mine"),
    ],
)
def test_a_run_is_called_by_its_settings_unless_it_is_given_a_name(cfg, words, group, name):
    found, _ = wandb_init.init_arguments(cfg(*words), group, "gru lr=0.1")
    assert found["name"] == name


def test_a_name_of_many_settings_is_cut(cfg):
    found, _ = wandb_init.init_arguments(cfg(), None, "gru " + "lr=0.1\n" * 99)
    assert len(found["name"]) == 100 and found["name"].endswith("...")
