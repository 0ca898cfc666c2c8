"""Several processes train as one: the same losses, one run directory, one end."""

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
from torch.distributed import fsdp

import lm
from lm import config, metrics, setup, train, update
from lm.launch import jobs, main, processes
from lm.record import checkpoint
from lm.system import distributed, ranks, seeds
from lm.system.errors import NonFiniteError
from lm.system.tensors import load_tensors
from tests.helpers import TINY_TRANSFORMER, Killed, rows

ROOT = Path(lm.__file__).parent.parent
CASES = {
    "plain": TINY_TRANSFORMER,
    "accumulation": (*TINY_TRANSFORMER, "train.micro_batch=1"),
    "muon": (*TINY_TRANSFORMER, "optimizer=muon"),
    "gru": ("model=gru", "model.n_embd=8", "model.n_hidden=8"),
    "counts": ("model=bigram_counts",),
    "dropout": (*TINY_TRANSFORMER, "model.dropout=0.2"),
    "shard": (*TINY_TRANSFORMER, "train.micro_batch=1"),
    "shard bfloat16": (*TINY_TRANSFORMER, "train.dtype=bfloat16"),
    "shard gru": ("model=gru", "model.n_embd=8", "model.n_hidden=9"),  # parts of unequal size
}
OFTEN = ("train.log_every=1", "train.eval_every=5", "train.save_every=6", "train.sample_len=8")
EXACT = ("train.compile=off", "train.dist_timeout=200")


def until(cfg: config.Config, out: Path, step: int) -> None:
    """Train up to that step, and no further: as a kill leaves it."""
    real = update.Update.__call__

    def dies(self, at: int, *size: int):
        if at == step:
            raise Killed
        return real(self, at, *size)

    update.Update.__call__ = dies
    try:
        out.mkdir(exist_ok=True)
        with pytest.raises(Killed):
            train.train(cfg, out)
    finally:
        update.Update.__call__ = real


def all_claims(cfgs: dict[str, config.Config], folder: Path) -> dict:
    """What each of two processes does, one thing after the other; rank 0's answers."""
    found = {}
    for name, cfg in cfgs.items():
        (folder / name).mkdir(exist_ok=True)
        train.train(cfg, folder / name)
    for step in (3, 9, 17):
        until(cfgs["dropout"], folder / "killed", step)
    train.train(cfgs["dropout"], folder / "killed")
    until(cfgs["shard"], folder / "shard killed", 9)
    train.train(cfgs["shard"], folder / "shard killed")
    until(cfgs["plain"], folder / "one, two, divided, one", 13)
    until(cfgs["shard"], folder / "one, two, divided, one", 19)
    found["seeds"] = dropout_seeds(cfgs["dropout"], folder / "seeds")
    found["stopped"] = bad_loss_on_rank_1(cfgs["plain"], folder / "bad")
    found["stopped, divided"] = bad_loss_on_rank_1(cfgs["shard"], folder / "bad shard")
    found["kept"] = numbers_kept(cfgs["shard"], folder / "kept")
    return found


def dropout_seeds(cfg: config.Config, out: Path) -> tuple[int, int]:
    """How many seeds dropout had in three steps of two processes, and how many are different."""
    real, mine = seeds.seed, []

    def spied(run_seed: int, purpose: str, step: int = 0) -> int:
        drawn = real(run_seed, purpose, step)
        mine.extend([drawn] * purpose.startswith("dropout"))
        return drawn

    seeds.seed = spied
    try:
        until(cfg, out, 3)
    finally:
        seeds.seed = real
    everybodys = [None, None]
    torch.distributed.all_gather_object(everybodys, mine[-3:])
    both = everybodys[0] + everybodys[1]
    return len(both), len(set(both))


def bad_loss_on_rank_1(cfg: config.Config, out: Path) -> float:
    """How many processes raised NonFiniteError."""
    real = metrics.next_token_loss
    if ranks.rank() == 1:
        metrics.next_token_loss = lambda *args: real(*args) * float("nan")
    out.mkdir(exist_ok=True)
    try:
        train.train(cfg, out)
    except NonFiniteError:
        return ranks.total(torch.ones(())).item()
    finally:
        metrics.next_token_loss = real
    return 0


def numbers_kept(cfg: config.Config, out: Path) -> list[float]:
    """Of parameters, gradients and AdamW's two averages: the share that rank 0 holds."""
    out.mkdir(exist_ok=True)
    run = setup.set_up(cfg, out)
    run.update.gradients(*run.batches[0])
    parameters = list(run.model.parameters())
    held = [parameters, [p.grad for p in parameters]]
    run.update(0)
    for name in ("exp_avg", "exp_avg_sq"):
        held.append([run.optimizers[0].state[p][name] for p in parameters])
    n = run.model.n_params()
    return [sum(t.to_local().numel() for t in tensors) / n for tensors in held]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(fsdp.FSDPModule, "set_force_sum_reduction_for_comms"),
    reason="divided models on CPUs take PyTorch 2.8",
)
def test_two_processes_train_as_one(cfg, tiny, shared, monkeypatch):
    """One start of two processes for all these claims, as it takes seconds."""
    monkeypatch.setenv("LM_CACHE_DIR", str(shared / "cache"))
    one = {name: cfg(*tiny, *words, *OFTEN, *EXACT) for name, words in CASES.items()}
    two = {}
    for name, words in CASES.items():
        how = ("train.n_proc=2", f"train.shard={name.startswith('shard')}")
        two[name] = cfg(*tiny, *words, *OFTEN, *EXACT, *how)
    for name in CASES:
        (shared / f"{name} alone").mkdir()
        train.train(one[name], shared / f"{name} alone")
    mixed = shared / "one, two, divided, one"
    until(one["plain"], mixed, 7)
    found = processes.spawn(all_claims, two["plain"].train, two, shared)
    train.train(one["plain"], mixed)

    # The same losses, norms and validation to the rounding of float32, whatever the split.
    for name in set(CASES) - {"dropout"}:
        near = 0.02 if "bfloat16" in name else 2e-5
        same_numbers(shared / name, shared / f"{name} alone", near)
        if "bfloat16" not in name:
            assert rows(shared / name, "samples.jsonl") == rows(
                shared / f"{name} alone", "samples.jsonl"
            )
    same_numbers(mixed, shared / "plain alone")
    # Resumed at the same number of processes: the same bits.
    same(shared / "dropout", shared / "killed")
    same(shared / "shard", shared / "shard killed")
    # Every process drops other numbers.
    assert found["seeds"] == (6, 6)
    # A bad loss on one stops both, before the update.
    assert found["stopped"] == found["stopped, divided"] == 2
    # Of two processes that divide the model each holds half of all that grows with it.
    assert found["kept"] == pytest.approx([0.5] * 4, abs=0.01)
    assert {p.name for p in (shared / "plain").iterdir()} == {
        p.name for p in (shared / "plain alone").iterdir()
    }


def same(a: Path, b: Path, step: int = 20) -> None:
    assert rows(a) == rows(b)
    assert rows(a, "samples.jsonl") == rows(b, "samples.jsonl")
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (checkpoint.folder(out, step) / name for out in (a, b))
        assert one.read_bytes() == other.read_bytes(), name


def same_numbers(a: Path, b: Path, near: float = 2e-5) -> None:
    for one, other in zip(rows(a), rows(b), strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key] == pytest.approx(other[key], rel=near), (a, key)


def test_what_one_process_raises_is_raised_where_they_were_started(cfg, tiny, tmp_path):
    """Through lm.train's own start of processes; the text is too short for one window."""
    from lm import train  # here, or runpy would warn in the tests that run it as a command

    made = cfg(*tiny, "model=bigram", "model.context_len=100000", "train.n_proc=2")
    with pytest.raises(ValueError, match="one window needs 100001"):
        train.run(jobs.Job(made, tmp_path / "run", []))


def test_a_batch_that_the_processes_cannot_share_is_refused(cfg):
    with pytest.raises(ValueError, match=r"batch_size=16 is not a multiple of train\.n_proc=3"):
        cfg("train.n_proc=3")
    with pytest.raises(ValueError, match=r"multiple of train\.micro_batch=8 x train\.n_proc=4"):
        cfg("train.n_proc=4", "train.micro_batch=8")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "give train.n_proc"),
        (("train.n_proc=2", "optimizer=muon"), "optimizer=muon turns whole matrices"),
        (("train.n_proc=2", "track.histograms=9"), "track.histograms=9 counts whole matrices"),
        (("train.n_proc=2", "train.compile=on"), "is not compiled"),
    ],
)
def test_what_a_divided_model_cannot_do_is_refused(cfg, words, reason):
    with pytest.raises(ValueError, match=reason):
        cfg("train.shard=true", *words)


def test_counts_are_not_divided_nor_is_a_model_by_a_pytorch_that_would_sum_its_gradients(
    cfg, monkeypatch
):
    """PyTorch 2.8 has a switch; without it gloo's sum would pass for a mean, or fail."""
    how = torch.device("cpu"), torch.float32
    with pytest.raises(ValueError, match="model=bigram_counts counts"):
        distributed.shard(cfg("model=bigram_counts").model.build(9), *how)
    switch = "set_force_sum_reduction_for_comms"
    monkeypatch.delattr(f"torch.distributed.fsdp.FSDPModule.{switch}", raising=False)
    with pytest.raises(ValueError, match=r"PyTorch 2\.8 or later"):
        distributed.shard(cfg("model=gru").model.build(9), *how)


def test_a_sweep_under_torchrun_is_refused(monkeypatch, capsys):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["lm.train", "-m", "seed=0,1"])
    with pytest.raises(SystemExit) as caught:
        main.main(lambda job: 0.0)
    assert caught.value.code == 2
    assert "every process of torchrun would run the whole sweep" in capsys.readouterr().err


# ------------------------------------------------------------------------------ real commands

WORDS = (*TINY_TRANSFORMER, "model.dropout=0.2", "train.n_proc=2", "hydra.run.dir=run")


@pytest.mark.faults
def test_a_killed_rank_ends_the_job_soon_by_name_and_the_run_goes_on(command, tiny):
    assert command("lm.train", *tiny, *WORDS, "hydra.run.dir=whole").returncode == 0
    begun = time.monotonic()
    lost = command("lm.train", *tiny, *WORDS, LM_FAILPOINTS="1:train.before_step=kill@13")
    assert time.monotonic() - begun < 60  # the start of three processes included
    assert lost.returncode == 1
    (line,) = lost.stderr.splitlines()
    assert line.startswith("error: rank 1 (process ")
    assert "was ended by SIGKILL at step 12; python -m lm.train resume=run goes on" in line
    resumed = command("lm.train", "resume=run")
    assert "resumed from step_000010" in resumed.stdout, resumed.stderr
    same(Path("run"), Path("whole"))


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
    child = subprocess.Popen(
        [sys.executable, "-m", "lm.train", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
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
    same(Path("run"), Path("whole"), 600)


@pytest.mark.faults
def test_torchrun_writes_one_run_as_the_launcher_of_lm_does(command, tiny, tmp_path):
    assert command("lm.train", *tiny, *WORDS, "hydra.run.dir=own").returncode == 0
    words = [w for w in (*tiny, *WORDS) if not w.startswith(("train.n_proc", "hydra."))]
    how = ("--nproc-per-node", "2", "-m", "lm.train")
    ran = command("torch.distributed.run", *how, *words)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("done: best val/bpb") == 1
    (run,) = (tmp_path / "outputs/runs").glob("*/*")
    same(run, Path("own"))
    assert {p.name for p in tmp_path.iterdir()} == {"outputs", "own"}
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
    other = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--node-rank", "1", *how],
        env={**os.environ, "PYTHONPATH": str(ROOT)}
        | ({"LM_FAILPOINTS": "1:train.before_step=kill@13"} if lost else {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ran = command("torch.distributed.run", "--node-rank", "0", *how)
    assert (other.wait() == 0) == (ran.returncode == 0) == (not lost), ran.stderr
    if lost:
        (line,) = [x for x in ran.stderr.splitlines() if x.startswith("error: ")]
        assert "was lost or did not answer (" in line
        assert "; python -m lm.train resume=run goes on from the last checkpoint" in line
        assert command("lm.train", "resume=run").returncode == 0
    assert command("lm.train", *tiny, *WORDS, "hydra.run.dir=whole").returncode == 0
    assert rows(Path("run"))[-1]["val/bpb"] == pytest.approx(rows(Path("whole"))[-1]["val/bpb"])
