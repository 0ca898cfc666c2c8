"""The update's fast paths against the plain one: bfloat16, compiled, attention written out."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lm import config, update
from lm.data.batches import Batches
from lm.optim.groups import AdamW
from lm.system import devices, failpoint
from tests.helpers import TINY_TRANSFORMER

V, T = 64, 16
IDS = torch.randint(V, (5000,), generator=torch.Generator().manual_seed(0)).numpy()


@pytest.fixture
def make(cfg, tiny):
    """make("train.dtype=...", ...): an update of a tiny transformer, the same weights each time."""

    def build(number=torch.float32, *words: str) -> update.Update:
        made = cfg(*tiny, *TINY_TRANSFORMER, *words)
        torch.manual_seed(0)
        model = made.model.build(V)
        batches = Batches(IDS, 8, T, 0)
        optimizers = made.optimizer.build(model)
        return update.Update(model, optimizers, batches, made, torch.device("cpu"), number)

    return build


def gradient(made: update.Update) -> torch.Tensor:
    made.gradients(*made.batches[0])
    return torch.cat([p.grad.flatten() for p in made.model.parameters()])


def test_in_bfloat16_weights_and_gradients_stay_float32_and_near_the_exact_ones(make):
    exact, rounded = gradient(make()), gradient(low := make(torch.bfloat16))
    assert {p.dtype for p in low.model.parameters()} == {torch.float32} == {rounded.dtype}
    assert F.cosine_similarity(exact, rounded, dim=0) > 0.999
    assert not torch.equal(exact, rounded)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("fault", ["train.loss=nan", "train.grad=inf", "train.grad=nan"])
def test_a_step_that_is_not_finite_leaves_weights_and_optimizer_as_they_were(
    optimizer, fault, make, monkeypatch
):
    """Clipping one infinite gradient makes all others zero: the step must not be taken at all."""
    step = make(torch.float32, f"optimizer={optimizer}")
    step(0)
    before = copy.deepcopy([step.model.state_dict(), *(o.state_dict() for o in step.optimizers)])
    failpoint.switch_on(f"{fault}@1")
    assert not math.isfinite(sum(step(1)))
    after = [step.model.state_dict(), *(o.state_dict() for o in step.optimizers)]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert all(p.grad is None for p in step.model.parameters())


def test_a_further_number_of_a_step_may_be_nan_and_stops_no_training(make, monkeypatch):
    """Such as the gradient's noise, of which one pass tells nothing: every step was left out, and
    nothing said so, as the loss was finite."""
    step = make(torch.float32)
    before = copy.deepcopy(step.model.state_dict())

    def mean_and_nan(numbers):
        return torch.cat([numbers, torch.tensor([math.nan])])

    monkeypatch.setattr(update.ranks, "mean", mean_and_nan)
    assert math.isnan(step(0)[2])
    after = step.model.state_dict()
    assert not any(torch.equal(after[name], before[name]) for name in before)


def test_clipping_shortens_the_gradient_as_a_whole_and_tells_its_length_before(make, monkeypatch):
    plain = gradient(exact := make())
    clipped = make(torch.float32, "train.clip=0.01")
    seen = []
    for optimizer in clipped.optimizers:
        monkeypatch.setattr(
            optimizer,
            "step",
            lambda: seen.extend(p.grad.flatten() for p in clipped.model.parameters()),
        )
    _, norm = clipped(0)
    assert norm == pytest.approx(plain.norm().item(), rel=1e-5)
    expected = plain * 0.01 / plain.norm()
    torch.testing.assert_close(torch.cat(seen), expected, rtol=1e-4, atol=1e-8)
    assert exact.cfg.train.clip == 1.0


@pytest.mark.parametrize("name", ["gru", "mlp", "bigram"])
def test_every_other_model_trains_in_bfloat16_too(name, cfg, tiny):
    made, losses = cfg(*tiny, f"model={name}"), []
    for number in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        model = made.model.build(V)
        batches, optimizers = Batches(IDS, 8, T, 0), made.optimizer.build(model)
        step = update.Update(model, optimizers, batches, made, torch.device("cpu"), number)
        losses.append([step(i)[0].item() for i in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.faults
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_compiled_update_is_the_plain_one(dropout, make):
    """With dropout too, which leaves out the same numbers: both draw from one generator."""
    plain, compiled = (make(torch.float32, f"model.dropout={dropout}") for _ in range(2))
    assert compiled.compile().startswith("compiled in")
    for step in range(3):
        torch.testing.assert_close(plain(step), compiled(step), rtol=1e-5, atol=0)


COMPILE = """
import os, torch
torch.compile(lambda x: x.sin() + 1)(torch.ones(9))
print(any(name.endswith(".so") for _, _, names in os.walk(os.environ["TORCHINDUCTOR_CACHE_DIR"]) for name in names))
"""  # noqa: E501


def bits(made: update.Update) -> list[torch.Tensor]:
    """Copies of all that a step may change."""
    states = [t for o in made.optimizers for s in o.state.values() for t in s.values()]
    return [t.detach().clone() for t in (*made.model.parameters(), *states)]


@pytest.mark.parametrize("words", [("optimizer=adamw",), ("optimizer=muon",),
                                   ("optimizer=muon", "optimizer.weight_decay=0.1")])  # fmt: skip
def test_a_step_that_a_gpu_would_leave_out_by_itself_changes_no_bit(make, words, monkeypatch):
    plain, ahead = make(torch.float32, *words), make(torch.float32, *words)
    ahead.ahead = True  # as on a GPU: nobody reads whether the numbers are finite
    for step in range(3):
        assert torch.equal(plain(step), ahead(step))
    assert all(map(torch.equal, bits(plain), bits(ahead)))
    before = bits(ahead)
    failpoint.switch_on("train.grad=nan")
    assert ahead(3)[1].isnan()
    failpoint.switch_on("")
    assert all(map(torch.equal, before, bits(ahead)))
    assert torch.equal(plain(4), ahead(4))
    assert all(map(torch.equal, bits(plain), bits(ahead)))


@pytest.mark.parametrize("number", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "words",
    [
        ("optimizer=adamw", "model.dropout=0.1"),
        ("optimizer=muon", "optimizer.weight_decay=0.1"),
        ("model=gpt2",),
        ("model=llama", "model.n_kv_head=2"),
    ],
    ids=" ".join,
)
def test_a_step_of_a_gpu_reads_no_number_back(words, number, cfg, tiny, monkeypatch):
    """On the meta device there are no numbers: asking for one, or for one of the CPU's beside it,
    is an error."""
    meta, found = torch.device("meta"), []
    # Meta has no fused kernel; PyTorch's own reads nothing back, as long as `found_inf` is there.
    monkeypatch.setattr(AdamW, "step", lambda self: found.append(self.found_inf))
    plain = AdamW.__init__
    monkeypatch.setattr(
        AdamW, "__init__", lambda self, *args, fused: plain(self, *args, fused=False)
    )
    made = cfg(*tiny, *TINY_TRANSFORMER, *words)
    model = made.model.build(V).to(meta)
    batches = Batches(IDS, 8, T, 0).to(meta)
    step = update.Update(model, made.optimizer.build(model, number), batches, made, meta, number)
    step.ahead = True
    for i in range(2):
        assert step(i).is_meta
    assert len(found) == 2 and all(flag.is_meta for flag in found)
    with pytest.raises(RuntimeError, match="meta"):
        step(2).sum().item()


@pytest.mark.faults
def test_the_benchmark_of_a_gpu_checks_its_steps_as_it_does_here(monkeypatch):
    """No machine with a GPU runs these tests: its script is at least sound."""
    monkeypatch.syspath_prepend(
        Path(update.__file__).parents[1] / "experiments/benchmarks/training"
    )
    import bench

    said = bench.check("cpu")
    assert [line.split(",")[0] for line in said] == [
        f"train.compile={word}" for word in ("off", "off", "on", "graphs")
    ]
    assert said[0].endswith("within 0.0e+00 of the CPU's")
    cpu = torch.device("cpu")
    rounds = devices.matmul_dtype("auto", cpu) == torch.bfloat16  # where the processor has it
    assert ("0.0e+00" not in said[1]) == rounds
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    rows = [{"side": "lm gpt2", "tokens_per_s": 500_000}]
    assert bench.mfu(rows, bench.CASES["cuda"][0]) == "MFU: lm gpt2 43%."


@pytest.mark.faults
def test_compiled_code_is_kept_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    devices.keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "cache/compiled")
    compiled = subprocess.check_output(
        [sys.executable, "-c", COMPILE], env=dict(os.environ), text=True
    )
    assert compiled.split() == ["True"]


def test_compiled_code_stays_out_of_a_cache_that_the_user_did_not_make(monkeypatch, tmp_path):
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "of the user")
    devices.keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "of the user"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    devices.keep_compiled_code()
    (tmp_path / "a file").touch()
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path / "a file"))
    devices.keep_compiled_code()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_without_a_compiler_auto_goes_on_and_on_is_refused(make, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no C++ compiler\nmore")

    monkeypatch.setattr(torch, "compile", fails)
    assert make().compile() == "not compiled (no C++ compiler)"
    with pytest.raises(ValueError, match="compile=on: no C"):
        make(torch.float32, "train.compile=on").compile()


def test_auto_compiles_long_runs_alone():
    cpu = torch.device("cpu")
    assert update.should_compile("auto", cpu, 1e14)
    assert not update.should_compile("auto", cpu, 1e12)
    assert update.should_compile("on", cpu, 0) and not update.should_compile("off", cpu, 1e20)
    assert config.TrainConfig().compile == "auto"


def test_the_share_of_a_gpu_that_is_used_needs_its_name(monkeypatch):
    names = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H100 PCIe": 756e12, "GeForce 256": None}
    names |= {"NVIDIA A100-SXM4-80GB": 312e12, "NVIDIA L40": None, "NVIDIA RTX A1000": None}
    for name, flops in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        assert devices.peak_flops(torch.device("cuda")) == flops
    assert devices.peak_flops(torch.device("cpu")) is None


def test_a_batch_too_large_to_compile_is_left_to_the_first_step(make, monkeypatch):
    """Which halves it under train.micro_batch=auto, and otherwise says what did not fit."""
    monkeypatch.setattr(torch, "compile", lambda loss, **_: copy.copy(loss))
    made = make(torch.float32, "train.compile=on", "train.micro_batch=auto")
    plain = made.loss_fn
    failpoint.switch_on("train.forward=memory@1")
    assert made.compile().startswith("compiled in the first step")
    assert made.loss_fn is not plain and all(p.grad is None for p in made.model.parameters())
    made.micro_batch = 4
    assert torch.isfinite(made(0)).all()


class Plain(torch.optim.SGD):
    """An optimizer of somebody's own, which knows nothing of `found_inf`."""


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_an_optimizer_that_cannot_skip_waits_for_the_numbers_of_its_step(device, make, monkeypatch):
    """With `ahead` its step began on a GPU before anybody knew that the gradient was non-finite."""
    monkeypatch.setattr(update.memory, "room", lambda device: 1 << 40)  # of a GPU that is not here
    made = make()

    def ahead(optimizers):
        parts = (made.model, optimizers, made.batches, made.cfg, torch.device(device))
        return update.Update(*parts, torch.float32).ahead

    own = Plain(made.model.parameters(), lr=0.1)
    assert not ahead([own])
    assert not ahead([*made.optimizers, own])
    assert ahead(made.optimizers) == (device == "cuda")


def test_an_optimizer_of_ones_own_takes_no_step_with_a_non_finite_gradient(make, monkeypatch):
    made = make()
    made.optimizers = [Plain(made.model.parameters(), lr=0.1)]
    before = copy.deepcopy(made.model.state_dict())
    failpoint.switch_on("train.grad=nan@0")
    assert not math.isfinite(sum(made(0)))
    torch.testing.assert_close(made.model.state_dict(), before, rtol=0, atol=0)


def test_micro_batches_of_unequal_sizes_give_the_loss_and_gradient_of_the_whole_batch(make):
    whole, parts = make(), make()
    parts.micro_batch = 3  # of eight: three, three and two
    expected = gradient(whole)
    torch.testing.assert_close(gradient(parts), expected, rtol=1e-4, atol=1e-7)
    losses = [made.gradients(*made.batches[1]) for made in (whole, parts)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


def test_dropout_is_a_function_of_the_batch_the_part_and_the_seed(make):
    made = make()

    def drawn(number, stream):
        made.seed_dropout(number, stream)
        return torch.rand(8).tolist()

    places = [(number, stream) for number in (0, 1, 7) for stream in (0, 1, 7)]
    first = [drawn(*place) for place in places]
    assert [drawn(*place) for place in places] == first
    assert len(set(map(tuple, first))) == len(places)
    made.cfg.seed += 1
    assert not any(drawn(*place) in first for place in places)


AUTO = ("train.batch_size=8", "train.micro_batch=auto")


def test_a_batch_that_does_not_fit_goes_on_in_halves_until_it_does(make):
    plain, made = make(), make(torch.float32, *AUTO)
    failpoint.switch_on("train.forward=memory@1-2")
    found = made.train_on(0, step=0)
    assert made.micro_batch == 2
    torch.testing.assert_close(found, plain.train_on(0, step=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(bits(made)[0], bits(plain)[0], rtol=1e-4, atol=1e-6)


def test_a_single_window_or_a_size_that_was_asked_for_is_not_divided(make):
    failpoint.switch_on("train.forward=memory")
    auto = make(torch.float32, *AUTO)
    with pytest.raises(MemoryError):
        auto.train_on(0, step=0)
    assert auto.micro_batch == 1
    fixed = make(torch.float32, "train.batch_size=8", "train.micro_batch=4")
    fixed.use_micro_batch(found=2)
    with pytest.raises(MemoryError):
        fixed.train_on(0, step=0)
    assert fixed.micro_batch == 4
    auto.use_micro_batch(found=2)
    assert auto.micro_batch == 2


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("of another kind")])
def test_a_step_that_has_moved_a_weight_or_fails_otherwise_is_not_tried_again(
    error, make, monkeypatch
):
    made = make(torch.float32, *AUTO)

    def step():
        raise error

    monkeypatch.setattr(made.optimizers[0], "step", step)
    with pytest.raises(type(error)):
        made.train_on(0, step=0)
    assert made.micro_batch == 0


def test_the_numbers_of_steps_are_read_once_and_in_their_order():
    unread = update.UnreadNumbers()
    assert unread.read() == []
    unread.add(3, torch.tensor([2.0, 0.5]))
    unread.add(4, torch.tensor([1.0, 0.25]))
    named = [(3, {"loss": 2.0, "grad_norm": 0.5}), (4, {"loss": 1.0, "grad_norm": 0.25})]
    assert unread.read() == named
    assert unread.read() == []
    unread.add(5, torch.tensor([2.0, 0.5]))
    unread.clear()
    assert unread.read() == []


@pytest.mark.parametrize(
    ("word", "device", "flops", "expected"),
    [
        ("auto", "cuda", 0.0, True),
        ("auto", "mps", 1e20, False),
        ("auto", "cpu", update.WORTH_COMPILING, True),
        ("auto", "cpu", 0.99 * update.WORTH_COMPILING, False),
        ("graphs", "cuda", 0.0, True),
        ("off", "cuda", 1e20, False),
    ],
)
def test_what_is_compiled_depends_on_the_device_and_the_length_of_the_run(
    word, device, flops, expected
):
    assert update.should_compile(word, torch.device(device), flops) == expected
