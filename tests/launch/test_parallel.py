"""Several processes as a person starts them: killed, silent, stopped, on two machines."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lm import train
from lm.launch import jobs, main
from lm.record import checkpoint
from lm.system.tensors import load_tensors
from tests.helpers import TINY_TRANSFORMER, assert_same_run, rows, start


def test_what_one_process_raises_is_raised_where_they_were_started(cfg, tiny, tmp_path):
    """Through lm.train's own start of processes; the text is too short for one window."""
    made = cfg(*tiny, "model=bigram", "model.context_len=100000", "train.n_proc=2")
    with pytest.raises(ValueError, match="one window needs 100001"):
        train.run_job(jobs.Job(made, tmp_path / "run", []))


def test_a_sweep_under_torchrun_is_refused(monkeypatch, capsys):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["lm.train", "-m", "seed=0,1"])
    with pytest.raises(SystemExit) as caught:
        main.main(lambda job: 0.0)
    assert caught.value.code == 2
    assert "every process of torchrun would run the whole sweep" in capsys.readouterr().err


WORDS = (*TINY_TRANSFORMER, "model.dropout=0.2", "train.n_proc=2", "hydra.run.dir=run")


@pytest.mark.faults
def test_a_killed_rank_ends_the_job_soon_by_name_and_the_run_goes_on(command, tiny):
    assert command("lm.train", *tiny, *WORDS, "hydra.run.dir=whole").returncode == 0
    begun = time.monotonic()
    lost = command("lm.train", *tiny, *WORDS, LM_FAILPOINTS="1:train.before_step=kill@13")
    assert (
        time.monotonic() - begun < 120
    )  # the start of three processes included, on a busy machine
    assert lost.returncode == 1
    (line,) = lost.stderr.splitlines()
    assert line.startswith("error: rank 1 (process ")
    assert "was ended by SIGKILL at step 12; python -m lm.train resume=run goes on" in line
    resumed = command("lm.train", "resume=run")
    assert "resumed from step_000010" in resumed.stdout, resumed.stderr
    assert_same_run(Path("run"), Path("whole"))


@pytest.mark.faults
def test_a_rank_that_hangs_is_named_when_the_time_is_up(command, tiny):
    words = (*tiny, *WORDS, "train.dist_timeout=8")
    lost = command("lm.train", *words, LM_FAILPOINTS="1:train.before_step=sleep:1000@13")
    assert lost.returncode == 1
    (line,) = lost.stderr.splitlines()
    assert line.startswith("error: rank 1 (process ")
    assert "did not answer at step 12" in line


@pytest.mark.faults
def test_bad_numbers_on_one_rank_stop_all_with_exit_code_3(command, tiny):
    bad = command("lm.train", *tiny, *WORDS, LM_FAILPOINTS="1:train.loss=nan@13-30")
    assert bad.returncode == 3
    (line,) = bad.stderr.splitlines()
    assert "step 13: the loss is nan" in line
    weights = load_tensors(checkpoint.folder(Path("run"), 10) / "model.safetensors")
    assert all(torch.isfinite(w).all() for w in weights.values())


@pytest.mark.faults
@pytest.mark.parametrize("whom", ["rank 1", "the launcher", "the terminal"])
def test_a_signal_stops_all_ranks_at_the_same_step(command, tiny, whom):
    """To one rank, to the process that was started, and to all at once as Ctrl-C does."""
    words = (*tiny, *WORDS, "train.steps=600", "train.save_every=0", "train.eval_every=300")
    assert command("lm.train", *words, "hydra.run.dir=whole").returncode == 0
    child = start("lm.train", *words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not Path("run/metrics.jsonl").exists() or len(rows(Path("run"))) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    number = signal.SIGINT if whom == "the terminal" else signal.SIGTERM
    if whom == "rank 1":
        listed = subprocess.run(
            ["pgrep", "-f", "spawn_main", "-P", str(child.pid)], capture_output=True, text=True
        )
        os.kill(int(listed.stdout.split()[-1]), number)
    elif whom == "the terminal":
        os.killpg(child.pid, number)
    else:
        child.send_signal(number)
    error = child.communicate(timeout=60)[1]
    assert child.returncode == 128 + number, error
    assert f"stopped by {number.name}: python -m lm.train resume=run goes on" in error
    assert checkpoint.steps(Path("run"))[-1] % 300 != 0
    assert command("lm.train", "resume=run").returncode == 0
    assert_same_run(Path("run"), Path("whole"), 600)


@pytest.mark.faults
def test_torchrun_writes_one_run_as_the_launcher_of_lm_does(command, tiny, tmp_path):
    assert command("lm.train", *tiny, *WORDS, "hydra.run.dir=own").returncode == 0
    words = [w for w in (*tiny, *WORDS) if not w.startswith(("train.n_proc", "hydra."))]
    how = ("--nproc-per-node", "2", "-m", "lm.train")
    ran = command("torch.distributed.run", *how, *words)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("done: best val/bpb") == 1
    (run,) = (tmp_path / "outputs/runs").glob("*/*")
    assert_same_run(run, Path("own"))
    names = {p.name for p in tmp_path.iterdir()} - {"wandb-home"}  # where the user's key lies
    assert names == {"outputs", "own"}
    resumed = command("torch.distributed.run", *how, f"resume={run}", "train.steps=30")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((run / "summary.json").read_text())["step"] == 30


@pytest.mark.faults
def test_each_job_of_a_sweep_starts_its_processes(command, tiny):
    words = (*tiny, "model=bigram", "train.n_proc=2", "seed=0,1", "hydra.sweep.dir=sweep")
    swept = command("lm.train", "-m", *words)
    assert swept.returncode == 0, swept.stderr
    for arm in ("0", "1"):
        assert json.loads(Path("sweep", arm, "result.json").read_text())["status"] == "ok"
    assert rows(Path("sweep/0")) != rows(Path("sweep/1"))


@pytest.mark.faults
@pytest.mark.parametrize("lost", [False, True])
def test_two_machines_train_as_one_and_a_lost_one_is_told_by_the_other(lost, command, tiny):
    """Two of torchrun's agents, which know each other by a port alone."""
    words = [w for w in (*tiny, *WORDS) if not w.startswith("train.n_proc")]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    how = ("--nnodes", "2", "--master-addr", "localhost", "--master-port", str(port))
    how = (*how, "--nproc-per-node", "1", "-m", "lm.train", *words)
    env = {"LM_FAILPOINTS": "1:train.before_step=kill@13"} if lost else {}
    other = start("torch.distributed.run", "--node-rank", "1", *how, env=env)
    ran = command("torch.distributed.run", "--node-rank", "0", *how)
    assert (other.wait() == 0) == (ran.returncode == 0) == (not lost), ran.stderr
    if lost:
        (line,) = [x for x in ran.stderr.splitlines() if x.startswith("error: ")]
        assert "was lost or did not answer (" in line
        assert "; python -m lm.train resume=run goes on from the last checkpoint" in line
        assert command("lm.train", "resume=run").returncode == 0
    assert command("lm.train", *tiny, *WORDS, "hydra.run.dir=whole").returncode == 0
    assert rows(Path("run"))[-1]["val/bpb"] == pytest.approx(rows(Path("whole"))[-1]["val/bpb"])
