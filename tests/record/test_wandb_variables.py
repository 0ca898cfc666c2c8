"""WANDB_* variables count where track.* stands at its default, and one line says so."""

import os
from pathlib import Path

import pytest

from lm.record import wandb_mode, wandb_variables

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
        ((), "a-sweep", {"name": "first-0007"}),
        (("track.project=mine",), None, {"project": "mine"}),
        (("track.entity=me", "track.notes=mine"), None, {"entity": "me", "notes": "mine"}),
        (("track.tags=[t]", "name=n"), None, {"tags": ["t"], "name": "n-0007"}),
    ],
)
def test_variables_of_w_and_b_count_where_the_setting_is_the_default(
    cfg, monkeypatch, words, group, changed
):
    for name, text in VARIABLES.items():
        monkeypatch.setenv(name, text)
    wandb_mode.tidy_environment()
    found, line = wandb_variables.init_arguments(cfg(*words), Path("runs/0007"), group)
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
    found, line = wandb_variables.init_arguments(cfg(), Path("runs/0007"), None)
    assert (found["project"], found["name"], found["tags"]) == ("lm", "transformer-0007", [])
    assert line == "" and "WANDB_TAGS" not in os.environ
