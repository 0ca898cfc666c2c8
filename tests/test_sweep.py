"""Sweeps: seeds are folded, a failed arm harms no other, and the same command goes on."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm import arms
from tests.conftest import TINY_TRANSFORMER


def result(value, *overrides, arm="0", status="ok", error=None):
    return {
        "arm": arm,
        "overrides": list(overrides),
        "status": status,
        "value": value,
        "error": error,
    }


# ------------------------------------------------------------------------------------- folding


def test_seeds_fold_into_mean_spread_and_count():
    rows = arms.fold(
        [
            result(1.0, "model=gru", "seed=0"),
            result(2.0, "model=gru", "seed=1"),
            result(3.0, "model=gru", "seed=2"),
            result(1.5, "model=mlp", "seed=0"),
        ]
    )
    assert [(r["settings"], r["mean"], r["spread"], r["n"]) for r in rows] == [
        (["model=mlp"], 1.5, None, 1),
        (["model=gru"], 2.0, 1.0, 3),
    ]


def test_a_failed_seed_counts_neither_as_value_nor_as_zero():
    rows = arms.fold(
        [result(4.0, "seed=0"), result(None, "seed=1", status="failed", error="boom", arm="1")]
    )
    assert (rows[0]["mean"], rows[0]["spread"], rows[0]["n"], rows[0]["failed"]) == (
        4.0,
        None,
        1,
        1,
    )
    assert "1 failed" in arms.table(rows)


def test_settings_that_every_arm_shares_are_not_repeated():
    rows = arms.fold([result(1.0, "track=off", "a=1"), result(2.0, "track=off", "a=2")])
    assert [r["settings"] for r in rows] == [["a=1"], ["a=2"]]


@given(st.lists(st.floats(-1e6, 1e6), max_size=8))
def test_the_mean_lies_between_the_smallest_and_the_largest_value(values):
    mean, spread = arms.mean_and_spread([*values, float("nan"), float("inf")])
    if values:
        assert min(values) - 1e-6 <= mean <= max(values) + 1e-6
    assert (mean is None) == (not values) and (spread is None) == (len(values) < 2)


def test_arms_are_listed_in_the_order_of_their_numbers(tmp_path):
    for n in range(11):
        folder = tmp_path / str(n)
        folder.mkdir()
        record = {"overrides": ["a=1"], "status": "ok", "value": 1.0, "error": None}
        (folder / "result.json").write_text(json.dumps(record))
    assert [a["arm"] for a in arms.read(tmp_path)] == [str(n) for n in range(11)]


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
        return [r["value"] for r in arms.read(Path(tmp_path / "outputs" / name))]

    assert scores("cut") == scores("whole")


@pytest.mark.slow
def test_a_mistake_in_one_arm_of_a_grid_is_told_before_any_arm_starts(command, tiny, tmp_path):
    done = command("lm.train", "-m", *tiny, "model=transformer,ngram", "model.n_layer=1")
    assert done.returncode == 2
    assert "unknown setting model.n_layer" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "outputs/sweeps").exists()
