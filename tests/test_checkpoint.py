"""A checkpoint is whole or absent, holds all that a run needs, and a damaged one is named."""

import copy
import json

import pytest
import torch

from lm import checkpoint, store
from lm.checkpoint import TrainState


@pytest.fixture
def parts(cfg):
    """parts("model=gru"): a tiny model with its optimizers, two steps into training."""

    def make(*words, steps=2):
        loaded = cfg("model.context_len=8", *words)
        torch.manual_seed(0)
        model = loaded.model.build(32)
        optimizers = loaded.optimizer.build(model)
        for _ in range(steps):
            model(torch.randint(32, (2, 8))).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        return model, optimizers

    return make


SMALL = ("model.n_layer=1", "model.n_head=2", "model.n_embd=16")


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("model", [("model=gru", "model.n_embd=8", "model.n_hidden=8"), SMALL])
def test_everything_comes_back_to_the_bit(parts, tmp_path, optimizer, model):
    words = (*model, f"optimizer={optimizer}")
    trained, optimizers = parts(*words)
    state = TrainState(step=2, tokens=99, seconds=1.25, best_val_bpb=2.5, losses=[0.1, 0.2])
    checkpoint.save(tmp_path, trained, optimizers, state, keep_last=2)
    fresh, new = parts(*words, steps=0)
    assert checkpoint.resume(tmp_path, fresh, new) == state
    same(dict(fresh.state_dict()), dict(trained.state_dict()))
    for a, b in zip(new, optimizers, strict=True):
        same(a.state_dict()["state"], b.state_dict()["state"])


def test_no_checkpoint_is_no_error(parts, tmp_path):
    assert checkpoint.resume(tmp_path, *parts(*SMALL)) is None


def saved_at(parts, out, *steps, best=-1, keep_last=9):
    model, optimizers = parts(*SMALL)
    for step in steps:
        state = TrainState(step=step, best_step=best)
        checkpoint.save(out, model, optimizers, state, keep_last)


def test_the_last_ones_and_the_best_are_kept(parts, tmp_path):
    saved_at(parts, tmp_path, 1, 2, 3, 4, 5, 6, best=2, keep_last=2)
    assert checkpoint.steps(tmp_path) == [2, 5, 6]


DAMAGE = {
    "weights cut": lambda p: (p / "model.safetensors").write_bytes(b"123"),
    "a bit of a weight": lambda p: flip(p / "model.safetensors"),
    "a bit of the optimizer": lambda p: flip(p / "optimizer.safetensors"),
    "state missing": lambda p: (p / "state.json").unlink(),
    "manifest empty": lambda p: (p / "manifest.json").write_text(""),
    "a file added": lambda p: (p / "x").touch(),
}


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_one_is_named_and_the_one_before_used(parts, tmp_path, damage, caplog):
    saved_at(parts, tmp_path, 10, 20)
    DAMAGE[damage](checkpoint.folder(tmp_path, 20))
    assert checkpoint.resume(tmp_path, *parts(*SMALL)).step == 10
    assert "step_000020 is damaged and set aside" in caplog.text
    assert checkpoint.steps(tmp_path) == [10]


def test_if_all_are_damaged_it_does_not_start_again_in_silence(parts, tmp_path):
    saved_at(parts, tmp_path, 10, 20)
    for step in (10, 20):
        flip(checkpoint.folder(tmp_path, step) / "model.safetensors")
    with pytest.raises(ValueError, match=r"every checkpoint .* is damaged"):
        checkpoint.resume(tmp_path, *parts(*SMALL))


def test_a_crash_while_saving_leaves_the_one_before(parts, tmp_path, monkeypatch):
    saved_at(parts, tmp_path, 10)
    monkeypatch.setattr(checkpoint, "save_file", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError):
        saved_at(parts, tmp_path, 20)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000010"]
    assert checkpoint.resume(tmp_path, *parts(*SMALL)).step == 10


def test_another_model_is_refused_with_every_difference(parts, tmp_path):
    saved_at(parts, tmp_path, 10)
    with pytest.raises(ValueError, match=r"holds another model: .*size mismatch.*wte\.weight"):
        checkpoint.resume(tmp_path, *parts("model.n_layer=1", "model.n_head=2", "model.n_embd=24"))


def test_another_optimizer_is_refused(parts, tmp_path):
    saved_at(parts, tmp_path, 10)
    with pytest.raises(ValueError, match="resume takes the same optimizer"):
        checkpoint.resume(tmp_path, *parts(*SMALL, "optimizer=muon"))


def test_a_step_saved_twice_is_written_once(parts, tmp_path):
    saved_at(parts, tmp_path, 10)
    before = (checkpoint.folder(tmp_path, 10) / "state.json").stat().st_mtime_ns
    saved_at(parts, tmp_path, 10)
    assert (checkpoint.folder(tmp_path, 10) / "state.json").stat().st_mtime_ns == before


def test_nothing_in_a_checkpoint_is_pickled(parts, tmp_path):
    saved_at(parts, tmp_path, 10)
    names = sorted(p.name for p in checkpoint.folder(tmp_path, 10).iterdir())
    assert names == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    state = json.loads((checkpoint.folder(tmp_path, 10) / "state.json").read_text())
    assert copy.deepcopy(state["state"])["step"] == 10
    store.verify(checkpoint.folder(tmp_path, 10))
