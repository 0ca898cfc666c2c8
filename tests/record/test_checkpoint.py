"""A checkpoint is whole or absent, holds all that a run needs, and a damaged one is named."""

import copy
import json
import multiprocessing
import os
import random
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

from lm import config
from lm.optim import groups
from lm.record import checkpoint, optimizer_state
from lm.record.state import TrainState
from lm.system import failpoint, store
from lm.system.errors import NoCheckpointError, NonFiniteError, PointerError, StorageError


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


def test_the_one_that_a_rollback_goes_to_is_kept(parts, tmp_path):
    model, optimizers = parts(*SMALL)
    for step in range(1, 6):
        checkpoint.save(tmp_path, model, optimizers, TrainState(step, good_step=3), keep_last=1)
    assert checkpoint.steps(tmp_path) == [3, 5]


def test_only_folders_that_are_named_as_ours_are_checkpoints(parts, tmp_path):
    saved_at(parts, tmp_path, 7, 1_000_000)
    there = tmp_path / "checkpoints"
    (there / "step_000008").touch()
    for name in ("step_9", "step_000009x", "step_last", "step_"):
        (there / name).mkdir()
    assert checkpoint.steps(tmp_path) == [7, 1_000_000]


def test_checkpoints_of_later_steps_alone_are_removed(parts, tmp_path):
    saved_at(parts, tmp_path, 4, 5, 6, 7)
    checkpoint.remove_after(tmp_path, 5)
    assert checkpoint.steps(tmp_path) == [4, 5]


@pytest.mark.parametrize("of", ["weights", "optimizer"])
def test_what_is_not_finite_is_not_saved(parts, tmp_path, of):
    model, optimizers = parts(*SMALL)
    name, p = next(iter(model.named_parameters()))
    spoilt = p.data if of == "weights" else next(iter(optimizers[0].state.values()))["momentum"]
    spoilt.flatten()[3] = torch.inf
    text = f"step 4: {name} has" if of == "weights" else r"step 4: \S+momentum has"
    with pytest.raises(NonFiniteError, match=text):
        checkpoint.save(tmp_path, model, optimizers, TrainState(4), keep_last=1)
    assert checkpoint.steps(tmp_path) == []


def test_a_disk_that_refuses_is_told_with_what_is_needed_and_free(parts, tmp_path, monkeypatch):
    model, optimizers = parts(*SMALL)
    checkpoint.save(tmp_path / "other", model, optimizers, TrainState(4), keep_last=1)
    files = checkpoint.folder(tmp_path / "other", 4).glob("*.safetensors")
    n_bytes = sum(tensor.nbytes for path in files for tensor in load_file(path).values())
    failpoint.switch_on("ckpt.mid_write=enospc")
    said = (
        rf"step 4 is not written .*No space.*: it needs {n_bytes:,} bytes, and [\d,]+ are free in"
    )
    with pytest.raises(StorageError, match=said):
        checkpoint.save(tmp_path, model, optimizers, TrainState(4), keep_last=1)


def changed_weights(parts, out, change):
    """A model and a checkpoint of it whose first weights were changed."""
    saved_at(parts, out, 2)
    path = checkpoint.folder(out, 2)
    weights = load_file(path / "model.safetensors")
    name = next(iter(weights))
    weights[name] = change(weights[name]).contiguous()
    save_file(weights, path / "model.safetensors")
    return path, parts(*SMALL, steps=0)[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (torch.Tensor.half, r"holds another model: \S+ is torch.float16, not torch.float32"),
        (lambda t: t[None], r"holds another model: size mismatch for \S+: \(1, .*\), not \("),
        (lambda t: t * torch.nan, r"is damaged: \S+ has values that are not finite"),
    ],
)
def test_weights_of_another_type_or_shape_or_not_finite_are_refused(parts, tmp_path, change, said):
    path, model = changed_weights(parts, tmp_path, change)
    with pytest.raises(ValueError, match=said):
        checkpoint.load_weights(path, model)


def test_a_model_is_compared_with_the_newest_intact_checkpoint_before_it_is_made(parts, tmp_path):
    def build(*words):
        return lambda: parts(*words, steps=0)[0]

    wider = build("model.n_layer=1", "model.n_head=2", "model.n_embd=24")
    checkpoint.check_newest_fits(tmp_path, wider)  # nothing is there to be compared with
    saved_at(parts, tmp_path, 10, 20)
    cut(0.01)(checkpoint.folder(tmp_path, 20) / "model.safetensors")
    checkpoint.check_newest_fits(tmp_path, build(*SMALL))
    with pytest.raises(
        ValueError, match=r"step_000010 holds another model: .* makes it \["
    ) as error:
        checkpoint.check_newest_fits(tmp_path, wider)
    assert config.RESOLVED in str(error.value)


def test_a_model_with_tables_far_larger_than_its_weights_is_refused(parts, tmp_path, monkeypatch):
    """Which it computes as it is made, and no file holds."""
    saved_at(parts, tmp_path, 2)
    path = checkpoint.folder(tmp_path, 2)
    model, _ = parts(*SMALL, steps=0)
    weights = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    most = 100 + 4 * (path / "model.safetensors").stat().st_size - weights
    monkeypatch.setattr(checkpoint, "SPARE", 100)
    monkeypatch.setattr(checkpoint.memory, "skeleton", lambda build: build())
    for n_bytes in (most, most + 1):
        table = torch.zeros(n_bytes, dtype=torch.uint8)
        model.register_buffer("table", table, persistent=False)
        if n_bytes == most:
            checkpoint.check_fits(path, lambda: model)
    with pytest.raises(ValueError, match="far more than its weights"):
        checkpoint.check_fits(path, lambda: model)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(share):
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


FILES = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
HARM = {
    "empty": cut(0),
    "cut at 1 %": cut(0.01),
    "cut at 50 %": cut(0.5),
    "cut at 99.9 %": cut(0.999),
    "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size)),
    "one bit": flip,
    "missing": lambda p: p.unlink(),
    "a file beside it": lambda p: p.with_name("x").touch(),
    "a link": lambda p: (p.rename(p.parents[2] / "moved"), p.symlink_to(p.parents[2] / "moved")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_newest_one_is_named_and_the_one_before_used(parts, tmp_path, name, caplog):
    model, optimizers = parts(*SMALL)
    for kind, harm in HARM.items():
        out = tmp_path / kind
        for step in (10, 20):
            checkpoint.save(out, model, optimizers, TrainState(step), keep_last=9)
        harm(checkpoint.folder(out, 20) / name)
        caplog.clear()
        assert checkpoint.resume(out, model, optimizers).step == 10, kind
        assert "step_000020 is damaged and set aside" in caplog.text
        assert checkpoint.steps(out) == [10]


def test_a_checkpoint_of_another_step_or_without_tensors_is_damaged_though_it_is_sealed(
    parts, tmp_path, caplog
):
    saved_at(parts, tmp_path, 10)
    there = checkpoint.folder(tmp_path, 10)
    for step in (20, 30, 40):
        shutil.copytree(there, checkpoint.folder(tmp_path, step))
    for step, name in ((30, "model.safetensors"), (40, "optimizer.safetensors")):
        path = checkpoint.folder(tmp_path, step)
        state = json.loads((path / "state.json").read_text())
        state["state"]["step"] = step
        (path / "state.json").write_text(json.dumps(state))
        (path / name).write_text("no tensors")
        (path / store.MANIFEST).unlink()
        store.seal(path)
    assert checkpoint.resume(tmp_path, *parts(*SMALL)).step == 10
    for said in (
        "set aside: its state is that of step 10",
        "step_000030/model.safetensors cannot be read",
        "step_000040/optimizer.safetensors cannot be read",
    ):
        assert said in caplog.text


def test_an_old_checkpoint_that_cannot_be_deleted_stops_no_run(parts, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError

    monkeypatch.setattr(store, "remove", refuse)
    saved_at(parts, tmp_path, 1, 2, keep_last=1)
    assert checkpoint.steps(tmp_path) == [1, 2]


def test_what_a_killed_process_was_writing_is_deleted_at_the_next_start(parts, tmp_path):
    saved_at(parts, tmp_path, 10)
    there = checkpoint.folder(tmp_path, 10)
    with store.temporary_folder(there) as half:
        pass
    half.mkdir()
    assert checkpoint.resume(tmp_path, *parts(*SMALL)).step == 10
    assert [path.name for path in there.parent.iterdir()] == ["step_000010"]


def test_if_all_are_damaged_it_does_not_start_again_in_silence(parts, tmp_path):
    saved_at(parts, tmp_path, 10, 20)
    for step in (10, 20):
        flip(checkpoint.folder(tmp_path, step) / "model.safetensors")
    for _ in range(2):  # nor the next time
        with pytest.raises(ValueError, match=r"every .* is damaged: start a new run, or") as caught:
            checkpoint.resume(tmp_path, *parts(*SMALL))
        assert caught.value.exit_code == 5


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
        checkpoint.resume(tmp_path, *parts(*SMALL, "optimizer=adamw"))


def test_a_step_saved_twice_is_written_once(parts, tmp_path):
    saved_at(parts, tmp_path, 10)
    before = (checkpoint.folder(tmp_path, 10) / "state.json").stat().st_mtime_ns
    saved_at(parts, tmp_path, 10)
    assert (checkpoint.folder(tmp_path, 10) / "state.json").stat().st_mtime_ns == before


def test_a_step_saved_again_has_the_new_weights(parts, tmp_path):
    """The old ones were kept in silence."""
    saved_at(parts, tmp_path, 10)
    model, optimizers = parts(*SMALL, steps=3)
    checkpoint.save(tmp_path, model, optimizers, TrainState(10, good_step=10), keep_last=9)
    fresh, new = parts(*SMALL, steps=0)
    assert checkpoint.resume(tmp_path, fresh, new).good_step == 10
    same(dict(fresh.state_dict()), dict(model.state_dict()))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000010"]

    # A kill between the two renames leaves the new one alone, and one before them both.
    there = checkpoint.folder(tmp_path, 10)
    for is_gone in (True, False):
        there.rename(there.with_name("new_step_000010"))
        if not is_gone:
            saved_at(parts, tmp_path / "older", 10)
            shutil.copytree(checkpoint.folder(tmp_path / "older", 10), there)
        assert checkpoint.resume(tmp_path, *parts(*SMALL)).good_step == 10
        assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_000010"]


def test_nothing_takes_the_place_of_an_intact_checkpoint_but_a_whole_one(parts, tmp_path):
    """A folder of somebody's that was called like a new checkpoint deleted the old one."""
    saved_at(parts, tmp_path, 10)
    there = checkpoint.folder(tmp_path, 10)
    (there.parent / "new_step_000010").mkdir()
    (there.parent / "new_step_000010" / "w").write_text("mine")
    shutil.copytree(there, there.parent / "step_10")  # a copy that a user made by hand
    assert checkpoint.steps(tmp_path) == [10]
    assert checkpoint.resume(tmp_path, *parts(*SMALL)).step == 10
    names = {path.name for path in there.parent.iterdir()}
    assert names == {"step_000010", "step_10", "damaged_new_step_000010"}
    assert (there.parent / "damaged_new_step_000010" / "w").read_text() == "mine"
    checkpoint.remove_after(tmp_path, 5)
    assert {path.name for path in there.parent.iterdir()} == names - {"step_000010"}


def test_a_step_can_be_damaged_again_and_again(parts, tmp_path):
    """The second time was an error, "Directory not empty", though the one before was intact."""
    saved_at(parts, tmp_path, 10)
    for _ in range(3):
        saved_at(parts, tmp_path, 20)
        flip(checkpoint.folder(tmp_path, 20) / "model.safetensors")
        assert checkpoint.resume(tmp_path, *parts(*SMALL)).step == 10
    names = {p.name for p in (tmp_path / "checkpoints").glob("damaged_*")}
    assert names == {f"damaged_step_000020{end}" for end in ("", ".2", ".3")}


def test_nothing_in_a_checkpoint_is_pickled(parts, tmp_path):
    saved_at(parts, tmp_path, 10)
    names = sorted(p.name for p in checkpoint.folder(tmp_path, 10).iterdir())
    assert names == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    state = json.loads((checkpoint.folder(tmp_path, 10) / "state.json").read_text())
    assert copy.deepcopy(state["state"])["step"] == 10
    store.verify(checkpoint.folder(tmp_path, 10))


@pytest.mark.faults
@pytest.mark.parametrize("keep_last", [1, 2, 3])
def test_whatever_a_kill_interrupts_the_last_ones_and_the_best_are_intact(
    parts, tmp_path, keep_last, record_property
):
    """Random histories of saves, of which most are killed at one of their points."""
    model, optimizers = parts(*SMALL)
    points = [p for p in failpoint.POINTS if p.startswith("ckpt.")]
    draws, saved, best, kills = random.Random(keep_last), [], -1, 0
    for step in range(1, 61):
        failpoints = f"{draws.choice(points)}=kill" if draws.random() < 0.7 else ""

        def save(step=step, best=best, failpoints=failpoints):
            failpoint.switch_on(failpoints)
            state = TrainState(step=step, best_step=best)
            checkpoint.save(tmp_path, model, optimizers, state, keep_last)

        job = multiprocessing.get_context("fork").Process(target=save)
        job.start()
        job.join()
        assert job.exitcode == (-signal.SIGKILL if failpoints else 0) or "prune" in failpoints
        kills += job.exitcode != 0
        there = checkpoint.steps(tmp_path)
        saved += [step] * (step in there)
        for one in there:
            store.verify(checkpoint.folder(tmp_path, one))
        assert there[-keep_last:] == saved[-keep_last:]
        assert best in (-1, *there)
        if there and draws.random() < 0.2:
            best = there[-1]
    record_property("processes killed", kills)
    assert kills > 30


def damaged_state(parts, out, words, change):
    """A checkpoint whose optimizer state was changed by a stranger and sealed again."""
    model, optimizers = parts(*words)
    checkpoint.save(out, model, optimizers, TrainState(step=2), keep_last=2)
    path = checkpoint.folder(out, 2) / "optimizer.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    (checkpoint.folder(out, 2) / store.MANIFEST).unlink()
    store.seal(checkpoint.folder(out, 2))
    return parts(*words, steps=0)


def each(name, change):
    """A change of the state tensors of this name, of every parameter."""

    def apply(tensors):
        for key in [key for key in tensors if key.endswith(f"/{name}")]:
            tensors[key] = change(tensors[key]).contiguous()

    return apply


STATE_DAMAGE = {
    "no dimension": each("exp_avg", lambda t: t.sum()),
    "one value": each("exp_avg", lambda t: t.sum().reshape(1)),
    "transposed": each("exp_avg", lambda t: t.mT if t.ndim == 2 else t[:1]),
    "no values": each("exp_avg_sq", lambda t: t[:0]),
    "a step for each weight": each("step", lambda t: t.expand(4)),
    "a step in a list": each("step", lambda t: t.reshape(1)),
    "a step back": each("step", lambda t: t - 9),
    "integers": each("exp_avg", lambda t: t.int()),
    "half precision": each("exp_avg", lambda t: t.half()),
    "NaN": each("exp_avg", lambda t: t * torch.nan),
    "a negative square": each("exp_avg_sq", lambda t: t - 1),
    "another optimizer's": lambda tensors: tensors.update({"7/0/step": torch.ones(())}),
    "an unknown name": lambda tensors: tensors.update({"0/0/max_exp_avg_sq": torch.ones(())}),
    "of no parameter": lambda tensors: tensors.update({"0/999/step": torch.ones(())}),
}


@pytest.mark.parametrize("kind", STATE_DAMAGE)
def test_optimizer_state_of_another_shape_is_refused_before_a_fused_step_writes(
    parts, tmp_path, kind
):
    model, optimizers = damaged_state(parts, tmp_path, SMALL, STATE_DAMAGE[kind])
    with pytest.raises(ValueError, match="the checkpoint's optimizer state"):
        checkpoint.resume(tmp_path, model, optimizers)


def test_momentum_without_dimension_is_refused(parts, tmp_path):
    words = (*SMALL, "optimizer=muon")
    model, optimizers = damaged_state(parts, tmp_path, words, each("momentum", torch.sum))
    with pytest.raises(ValueError, match=r"momentum of parameter 0 is torch\.float32"):
        checkpoint.resume(tmp_path, model, optimizers)


class Paced(torch.optim.Optimizer):
    """An optimizer of the user's own, with a scalar of its own name."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        for p in parameters:
            self.state[p] = {"pace": torch.ones(()), "average": torch.zeros_like(p)}


def test_an_optimizer_of_ones_own_keeps_its_scalars():
    groups.avoid_compiler_import()
    first, second = (Paced([torch.nn.Parameter(torch.ones(2, 3))]) for _ in range(2))
    first.state_dict()["state"][0]["pace"].fill_(7)
    optimizer_state.unpack([second], *optimizer_state.pack([first]))
    same(second.state_dict()["state"], first.state_dict()["state"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", -1),
        ("step", 2.0),
        ("tokens", 1 << 63),
        ("seconds", -1.0),
        ("seconds", float("nan")),
        ("seconds", float("inf")),
        ("best_step", -2),
        ("good_step", 1 << 40),
        ("micro_batch", -5),
        ("micro_batch", True),
        ("skipped_batches", 1 << 62),
        ("skipped_batches", -1),
        ("rollbacks", 10**30),
        ("bad_in_a_row", None),
        ("losses", ["x"]),
        ("losses", {}),
    ],
)
def test_a_state_with_a_number_that_no_run_reaches_is_damaged(parts, tmp_path, key, value, caplog):
    saved_at(parts, tmp_path, 2)
    folder = checkpoint.folder(tmp_path, 2)
    record = json.loads((folder / "state.json").read_text())
    record["state"][key] = value
    (folder / "state.json").write_text(json.dumps(record))
    (folder / store.MANIFEST).unlink()
    store.seal(folder)
    with pytest.raises(NoCheckpointError):
        checkpoint.resume(tmp_path, *parts(*SMALL))
    assert "state.json is not what was written: " in caplog.text and key in caplog.text


def test_a_checkpoint_that_was_not_fetched_is_named_and_left_where_it_is(parts, tmp_path):
    saved_at(parts, tmp_path, 1, 2)
    path = checkpoint.folder(tmp_path, 2) / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:x\nsize 9\n")
    with pytest.raises(
        PointerError, match=r"model\.safetensors is a pointer .*: git -C .* lfs pull"
    ):
        checkpoint.resume(tmp_path, *parts(*SMALL))
    assert checkpoint.steps(tmp_path) == [1, 2]
