"""Several processes train as one: the same losses, one run directory, one end."""

from pathlib import Path

import pytest
import torch

from lm import config, metrics, setup, train, update
from lm.launch import processes
from lm.system import distributed, ranks, seeds
from lm.system.errors import NonFiniteError
from tests.helpers import TINY_TRANSFORMER, Killed, assert_same_run, rows

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
OFTEN = ("train.log_every=1", "train.eval_every=4", "train.save_every=3", "train.sample_len=8")
STEPS = 10
EXACT = (f"train.steps={STEPS}", "train.compile=off", "train.dist_timeout=200")


def until(cfg: config.Config, out: Path, step: int) -> None:
    """Train up to that step, and no further: as a kill leaves it."""
    real = update.Update.step

    def dies(self, at: int, *size: int):
        if at == step:
            raise Killed
        return real(self, at, *size)

    update.Update.step = dies
    try:
        out.mkdir(exist_ok=True)
        with pytest.raises(Killed):
            train.train(cfg, out)
    finally:
        update.Update.step = real


def all_claims(cfgs: dict[str, config.Config], folder: Path) -> dict:
    """What each of two processes does, one thing after the other; rank 0's answers."""
    found = {}
    for name, cfg in cfgs.items():
        (folder / name).mkdir(exist_ok=True)
        train.train(cfg, folder / name)
    for step in (2, 5, 8):
        until(cfgs["dropout"], folder / "killed", step)
    train.train(cfgs["dropout"], folder / "killed")
    until(cfgs["shard"], folder / "shard killed", 5)
    train.train(cfgs["shard"], folder / "shard killed")
    until(cfgs["plain"], folder / "one, two, divided, one", 7)
    until(cfgs["shard"], folder / "one, two, divided, one", 9)
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
    run.update.step(0)
    for name in ("exp_avg", "exp_avg_sq"):
        held.append([run.optimizers[0].state[p][name] for p in parameters])
    n = run.model.n_params()
    return [sum(t.to_local().numel() for t in tensors) / n for tensors in held]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.mark.slow
def test_two_processes_train_as_one(cfg, tiny, shared, monkeypatch):
    """One start of two processes for all these claims, as it takes seconds."""
    from torch.distributed import fsdp  # a second, which other tests need not wait for

    if not hasattr(fsdp.FSDPModule, "set_force_sum_reduction_for_comms"):
        pytest.skip("divided models on CPUs take PyTorch 2.8")
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
    until(one["plain"], mixed, 4)
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
    assert_same_run(shared / "dropout", shared / "killed", STEPS)
    assert_same_run(shared / "shard", shared / "shard killed", STEPS)
    # Every process drops other numbers.
    assert found["seeds"] == (6, 6)
    # A bad loss on one stops both, before the update.
    assert found["stopped"] == found["stopped, divided"] == 2
    # Of two processes that divide the model each holds half of all that grows with it.
    assert found["kept"] == pytest.approx([0.5] * 4, abs=0.01)
    assert {p.name for p in (shared / "plain").iterdir()} == {
        p.name for p in (shared / "plain alone").iterdir()
    }


def same_numbers(a: Path, b: Path, near: float = 2e-5) -> None:
    for one, other in zip(rows(a), rows(b), strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key] == pytest.approx(other[key], rel=near), (a, key)


def test_a_batch_that_the_processes_cannot_share_is_refused(cfg):
    with pytest.raises(ValueError, match=r"batch_size=8 is not a multiple of train\.n_proc=3"):
        cfg("train.n_proc=3")
    with pytest.raises(ValueError, match=r"multiple of train\.micro_batch=8 x train\.n_proc=4"):
        cfg("train.n_proc=4", "train.micro_batch=8")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "give train.n_proc"),
        (("train.n_proc=2", "optimizer=muon"), "optimizer=muon turns whole matrices"),
        (
            ("train.n_proc=2", "optimizer=adamw", "track.histograms=9"),
            "track.histograms=9 counts whole matrices",
        ),
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
