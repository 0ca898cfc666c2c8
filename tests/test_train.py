"""The commands as a person types them: train, kill, resume, sample, evaluate, sweep."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from lm.record import checkpoint
from lm.system import files
from tests.helpers import TINY_TRANSFORMER, rows


@pytest.mark.slow
def test_one_command_trains_and_the_others_read_its_run(command, tiny, tmp_path):
    trained = command("lm.train", *tiny, *TINY_TRANSFORMER)
    assert trained.returncode == 0, trained.stderr
    for part in (
        "built in",
        "step     20",
        "val loss",
        "ppl",
        "bpb",
        "tok/s",
        "done: best val/bpb",
    ):
        assert part in trained.stdout
    (run,) = (tmp_path / "outputs/runs").glob("*/*")
    assert {"config.resolved.yaml", ".hydra", "train.log", "summary.json"} <= set(os.listdir(run))

    again = command("lm.train", *tiny, *TINY_TRANSFORMER)
    assert again.stdout.count("reused") == 3
    assert len(list((tmp_path / "outputs/runs").glob("*/*"))) == 2

    said = command("lm.sample", f"run={run}", "prompt=12 plus", "max_tokens=20", "n=2", "seed=3")
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("12 plus") == 2
    assert (
        said.stdout
        == command(
            "lm.sample", f"run={run}", "prompt=12 plus", "max_tokens=20", "n=2", "seed=3"
        ).stdout
    )

    score = command("lm.evaluate", f"run={run}")
    summary = json.loads((run / "summary.json").read_text())
    assert f"bits/byte   {summary['best_val_bpb']:.4f}" in score.stdout, score.stderr
    (tmp_path / "other.txt").write_text("5 plus 5 is 10, said the cat.\n" * 30)
    other = command("lm.evaluate", f"run={run}", "corpus=other.txt", "split=train")
    assert "other.txt train" in other.stdout, other.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.faults)]
)
def test_killed_at_any_moment_it_goes_on_to_the_same_end(command, started, tiny, tmp_path, name):
    words = (*tiny, *TINY_TRANSFORMER, "train.steps=100", "train.save_every=25")
    whole = command("lm.train", *words, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    child = started("lm.train", *words)
    deadline = time.monotonic() + 60
    while not list(Path("outputs").glob("runs/*/*/checkpoints/step_000025")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(name)
    assert child.wait() != 0
    (run,) = Path("outputs/runs").glob("*/*")
    assert not (run / "summary.json").exists()
    resumed = command("lm.train", "resume=latest")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from step_000" in resumed.stdout
    assert rows(run) == rows(Path("whole"))
    a, b = (checkpoint.folder(out, 100) / "model.safetensors" for out in (run, Path("whole")))
    assert a.read_bytes() == b.read_bytes()
    before = {p: files.sha256(p) for p in Path("whole").rglob("*") if p.is_file()}
    again = command("lm.train", *words, "hydra.run.dir=whole")
    assert again.returncode == 0 and "already complete at step 100" in again.stdout, again.stderr
    told = {"train.log", ".running", "hydra.yaml"}
    assert {p.name for p in before if files.sha256(p) != before[p]} <= told


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, pytest.param(10, marks=pytest.mark.faults)])
def test_runs_started_in_one_second_have_directories_of_their_own(n, started, tiny):
    children = [started("lm.train", *tiny, "model=bigram_counts") for _ in range(n)]
    assert [child.wait() for child in children] == [0] * n
    assert len(list(Path("outputs/runs").glob("*/*/summary.json"))) == n
    assert len(list(Path("outputs/cache").glob("tokens-*"))) == 1
