"""The end of a sweep: every arm ranked or listed as failed, and the same command goes on."""

import json
import os
import shutil
from pathlib import Path

import pytest

from lm import config
from lm.settings.yaml_files import read_yaml
from lm.sweep import arms, callback, ranking
from lm.sweep.study import STUDY
from lm.system import files
from tests.helpers import TINY_TRANSFORMER, inspected, offline_runs
from tests.sweep.searches import states, trials


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
    assert again.stdout.count(" (was complete) ") == 2
    assert {n: (root / n / "metrics.jsonl").read_bytes() for n in "01"} == before
    assert {n: (root / n / "summary.json").stat().st_mtime_ns for n in "01"} == stamps
    assert again.stdout.count("/2 failed: ") == again.stdout.count("/3 failed: ") == 1
    assert again.stdout.count("  failed: ") == 2


@pytest.mark.slow
def test_an_arm_that_was_killed_goes_on_and_gives_what_it_would_have_given(command, tiny, tmp_path):
    words = ["-m", *tiny, *TINY_TRANSFORMER, "seed=0,1"]
    whole = command("lm.train", *words, "hydra.sweep.dir=outputs/whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    shutil.copytree("outputs/whole", "outputs/cut")
    # What a kill after step 10 leaves: no result, no summary, the older checkpoint.
    arm = tmp_path / "outputs/cut/1"
    (arm / "result.json").unlink()
    (arm / "summary.json").unlink()
    for path in sorted((arm / "checkpoints/step_000020").iterdir()):
        path.unlink()
    (arm / "checkpoints/step_000020").rmdir()
    again = command("lm.train", *words, "hydra.sweep.dir=outputs/cut")
    assert again.returncode == 0 and "resumed from step_000010" in (arm / "train.log").read_text()
    assert again.stdout.count(" (was complete) ") == 1

    def scores(name: str) -> list[float]:
        return [r.value for r in ranking.read(tmp_path / "outputs" / name).values()]

    assert scores("cut") == scores("whole")


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


@pytest.mark.slow
def test_arms_are_ranked_and_learned_from_wherever_their_directories_are(command, tiny, tmp_path):
    """They were looked for one level below the sweep's directory, by their numbers."""
    grid = ["-m", *tiny, "model=bigram", "model.context_len=8,100000", "hydra.sweep.dir=g"]
    done = command("lm.train", *grid, "hydra.sweep.subdir=${model.name}/${model.context_len}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "g/bigram/100000 failed: the training text has" in done.stdout
    assert "python -m lm.sample run=g/bigram/8" in done.stdout
    summary = json.loads((tmp_path / "g/summary.json").read_text())
    assert [(row["arms"], row["n"]) for row in summary["ranking"]] == [
        (["bigram/8"], 1),
        (["bigram/100000"], 0),
    ]
    search = ["-m", "hydra/sweeper=lm", "hydra.sweeper.n_trials=2", "hydra.sweeper.pruner=median"]
    search += [*tiny, "model=bigram", "optimizer.lr=interval(1e-3,1e-2)", "hydra.sweep.dir=s"]
    done = command("lm.train", *search, "hydra.sweep.subdir=../t_${hydra.job.num}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(tmp_path / "s") == ["COMPLETE"] * 2
    assert all(trial.intermediate_values for trial in trials(tmp_path / "s"))
    assert "python -m lm.report .;" in done.stdout


def result(root, number, text):
    out = root / f"t_{number}"
    out.mkdir(parents=True)
    arms.register(root, number, out)
    if text is not None:
        (out / "result.json").write_text(text)


OK = '{"status": "ok", "value": 1.5, "overrides": ["a=1"]}'
FAILED = '{"status": "failed", "error": "why", "overrides": ["a=2"]}'
STRANGE = '{"status": "failed", "error": "\\ud800", "overrides": ["\\u001b[2J"]}'
ENDS = {  # the results of a sweep's arms -> exit codes of a grid and of a search, and what is said
    (OK, OK): (0, 0, "1.5000"),
    (OK, FAILED): (1, 0, "s/t_1 failed: why (error.log there)"),
    (FAILED, FAILED): (1, 1, "s/t_0 failed: why"),
    (OK, None): (1, 0, "no result yet in s/t_1"),
    (None, FAILED): (1, 1, "no result yet in s/t_0"),
    (OK, "{"): (1, 1, "s/t_1/result.json cannot be read"),
    (OK, '{"value": "low"}'): (1, 1, "s/t_1/result.json is not what was written"),
    (OK, '{"value": 1e999}'): (1, 1, "s/t_1/result.json is not what"),
    (OK, '{"value": ' + "9" * 400 + "}"): (1, 1, "s/t_1/result.json"),
    (OK, "pipe"): (1, 1, "s/t_1/result.json is not a plain file"),
    (OK, '{"status": "ok"}'): (1, 1, "s/t_1/result.json is not what"),
    (OK, '{"status": "strange", "value": 3}'): (1, 1, "s/t_1/result.json is not what"),
    (OK, STRANGE): (1, 0, "s/t_1 failed"),
}


@pytest.mark.parametrize("texts", ENDS)
@pytest.mark.parametrize("kind", ["grid", "search"])
def test_success_is_told_only_where_there_was_some(texts, kind, caplog, tmp_path):
    """A search ended with 0 though the result of an arm could not be read."""
    caplog.set_level("INFO")
    root = Path("s")
    for number, text in enumerate(texts):
        result(root, number, None if text == "pipe" else text)
        if text == "pipe":
            os.mkfifo(root / f"t_{number}/result.json")
    if kind == "search":
        (root / STUDY).write_text("{}")
    code = 0
    try:
        callback.conclude(root)
    except SystemExit as end:
        code = end.code
    assert code == ENDS[texts][kind == "search"]
    assert ENDS[texts][2] in caplog.text
    if OK in texts:
        assert "   1.5000" in caplog.text
