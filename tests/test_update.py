"""The update's fast paths against the plain one: bfloat16, compiled, attention written out."""

import contextlib
import copy
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lm import config, update
from lm.data.batches import Batches
from lm.optim.groups import AdamW
from lm.system import devices, failpoint, seeds
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


def test_a_model_that_is_not_rounded_as_a_whole_gets_autocast_of_the_run_s_type(make, monkeypatch):
    made, given = make(torch.bfloat16), []
    made.loss_fn.low_precision = False  # as of a GRU

    def autocast(*device_and_type):
        given.append(device_and_type)
        return contextlib.nullcontext()

    monkeypatch.setattr(update.devices, "autocast", autocast)
    gradient(made)
    assert given == [(torch.device("cpu"), torch.bfloat16)]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("fault", ["train.loss=nan", "train.grad=inf", "train.grad=nan"])
def test_a_step_that_is_not_finite_leaves_weights_and_optimizer_as_they_were(
    optimizer, fault, make, monkeypatch
):
    """Clipping one infinite gradient makes all others zero: the step must not be taken at all."""
    made = make(torch.float32, f"optimizer={optimizer}")
    made.step(0)
    before = copy.deepcopy([made.model.state_dict(), *(o.state_dict() for o in made.optimizers)])
    failpoint.switch_on(f"{fault}@7")
    assert not math.isfinite(sum(made.step(7).values()))
    after = [made.model.state_dict(), *(o.state_dict() for o in made.optimizers)]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert all(p.grad is None for p in made.model.parameters())


def test_a_further_number_of_a_step_may_be_nan_and_stops_no_training(make, monkeypatch):
    """Such as the gradient's noise, of which one pass tells nothing: every step was left out, and
    nothing said so, as the loss was finite."""
    made = make(torch.float32)
    before = copy.deepcopy(made.model.state_dict())
    nan = {"noise": torch.tensor(math.nan)}
    monkeypatch.setattr(made, "means", lambda numbers: numbers | nan)
    assert math.isnan(made.step(0)["noise"])
    after = made.model.state_dict()
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
    norm = clipped.step(0)["grad_norm"]
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
        updated = update.Update(model, optimizers, batches, made, torch.device("cpu"), number)
        losses.append([updated.step(i)["loss"].item() for i in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.faults
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_compiled_update_is_the_plain_one(dropout, make):
    """With dropout too, which leaves out the same numbers: both draw from one generator."""
    plain, compiled = (make(torch.float32, f"model.dropout={dropout}") for _ in range(2))
    assert compiled.compile().startswith("compiled in")
    for step in range(3):
        torch.testing.assert_close(plain.step(step), compiled.step(step), rtol=1e-5, atol=0)


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
        assert plain.step(step) == ahead.step(step)
    assert all(map(torch.equal, bits(plain), bits(ahead)))
    before = bits(ahead)
    failpoint.switch_on("train.grad=nan")
    assert ahead.step(3)["grad_norm"].isnan()
    failpoint.switch_on("")
    assert all(map(torch.equal, before, bits(ahead)))
    assert plain.step(4) == ahead.step(4)
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
    optimizers = made.optimizer.build(model, number)
    updated = update.Update(model, optimizers, batches, made, meta, number)
    updated.ahead = True
    for i in range(2):
        assert all(n.is_meta for n in updated.step(i).values())
    assert len(found) == 2 and all(flag.is_meta for flag in found)
    with pytest.raises(RuntimeError, match="meta"):
        sum(updated.step(2).values()).item()


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
        raise RuntimeError(message)

    monkeypatch.setattr(torch, "compile", fails)
    plain, made, message = make(), make(), "no C++ compiler\nmore"
    uncompiled = made.loss_fn
    assert made.compile() == "not compiled (no C++ compiler)"
    assert made.loss_fn is uncompiled
    assert made.step(0) == plain.step(0)
    with pytest.raises(ValueError, match="compile=on: no C"):
        make(torch.float32, "train.compile=on").compile()
    message = ""
    assert make().compile() == "not compiled (RuntimeError)"


@pytest.mark.parametrize(
    ("word", "device", "graphs", "plain_draws"),
    [("on", "cpu", False, True), ("on", "cuda", False, False), ("graphs", "cuda", True, False)],
)
def test_the_compiler_is_told_of_graphs_of_draws_and_that_all_batches_are_alike(
    word, device, graphs, plain_draws, make, monkeypatch
):
    given = []

    def fails(_, **options):
        given.append(options)
        raise RuntimeError

    monkeypatch.setattr(torch, "compile", fails)
    made = make(torch.float32, f"train.compile={word}")
    made.device = torch.device(device)
    with pytest.raises(ValueError, match=f"train.compile={word}: RuntimeError"):
        made.compile()
    options = {"triton.cudagraphs": graphs, "fallback_random": plain_draws}
    assert given == [{"dynamic": False, "options": options}]


@pytest.mark.parametrize(("n_parts", "windows"), [(0, 8), (4, 2)])
def test_what_is_compiled_sees_the_shapes_of_a_step_and_leaves_no_trace(
    n_parts, windows, make, monkeypatch
):
    shapes = []

    class Compiled(torch.nn.Module):
        """Stands in for the compiled loss, and sees what it is called with."""

        def __init__(self, loss_fn, **_):
            super().__init__()
            self.loss_fn = loss_fn

        def forward(self, inputs, targets):
            shapes.append((tuple(inputs.shape), tuple(targets.shape)))
            return self.loss_fn(inputs, targets)

    monkeypatch.setattr(torch, "compile", Compiled)
    made = make(torch.float32, "train.batch_size=8", f"train.parts={n_parts}")
    mode = torch.get_deterministic_debug_mode()
    try:
        torch.set_deterministic_debug_mode("warn")
        assert re.fullmatch(r"compiled in \d\.\d s", made.compile())
        assert torch.get_deterministic_debug_mode() == 1  # to warn is 1, and to fail 2
    finally:
        torch.set_deterministic_debug_mode(mode)
    assert shapes == [((windows, T), (windows, T))]
    assert all(p.grad is None for p in made.model.parameters())
    made.step(0)
    assert set(shapes) == {((windows, T), (windows, T))}


def test_auto_compiles_long_runs_alone():
    cpu = torch.device("cpu")
    assert update.should_compile("auto", cpu, lambda: 3600.0)
    assert not update.should_compile("auto", cpu, lambda: 60.0)
    assert update.should_compile("on", cpu, lambda: 0.0)
    assert not update.should_compile("off", cpu, lambda: 1e9)
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
    assert math.isfinite(sum(made.step(0).values()))


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
    assert not math.isfinite(sum(made.step(0).values()))
    torch.testing.assert_close(made.model.state_dict(), before, rtol=0, atol=0)


def test_micro_batches_of_unequal_sizes_give_the_loss_and_gradient_of_the_whole_batch(make):
    whole, parts = make(), make()
    parts.micro_batch = 3  # of eight: three, three and two
    expected = gradient(whole)
    torch.testing.assert_close(gradient(parts), expected, rtol=1e-4, atol=1e-7)
    losses = [made.gradients(*made.batches[1]) for made in (whole, parts)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


def test_loss_and_gradient_of_a_step_are_those_of_its_model(make):
    """The tests beside it compare one update with another: all of them 64 times as large passed."""
    made, plain = make(), make()
    expected = plain.model.next_token_loss(*plain.batches[2])
    expected.backward()
    loss = made.gradients(*made.batches[2])
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-6, atol=0)
    for p, alone in zip(made.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, alone.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("n_parts", "expected"), [(0, "ranks"), (4, "parts")])
def test_processes_average_in_the_order_of_a_tree_for_a_batch_in_parts(
    n_parts, expected, make, monkeypatch
):
    used = []
    for name in ("ranks", "parts"):
        module = getattr(update, name)

        def mean(value, name=name, plain=module.mean):
            used.append(name)
            return plain(value)

        monkeypatch.setattr(module, "mean", mean)
    make(torch.float32, f"train.parts={n_parts}").step(0)
    assert used == [expected]


def test_processes_exchange_gradients_with_the_last_micro_batch_alone(make, monkeypatch):
    made, exchanges = make(), []
    ddp = torch.nn.Sequential()  # stands in for PyTorch's wrapper of the loss
    ddp.forward = made.loss_fn.forward
    monkeypatch.setattr(
        update.distributed,
        "data_parallel",
        lambda module, device: ddp if (module, device) == (made.loss_fn, made.device) else None,
    )

    def sync(module, now):
        exchanges.append((module, now))
        return contextlib.nullcontext()

    monkeypatch.setattr(update.distributed, "gradient_sync", sync)
    made.micro_batch = 3
    made.step(0)
    assert exchanges == [(ddp, False), (ddp, False), (ddp, True)]


def test_dropout_of_a_step_is_seeded_by_its_batch_and_process(make, monkeypatch):
    made, seeded = make(), []
    monkeypatch.setattr(update.ranks, "rank", lambda: 2)
    monkeypatch.setattr(made, "seed_dropout", lambda *place: seeded.append(place))
    made.step(5)
    assert seeded == [(5, 2)]


def test_a_batch_in_parts_is_their_mean_and_each_has_dropout_of_its_own(make):
    words = ("model.dropout=0.2", "train.clip=0")
    made, plain = make(torch.float32, *words, "train.parts=4"), make(torch.float32, *words)
    loss, norm = made.step(3).values()
    inputs, targets = plain.batches[3]
    expected = 0.0
    for part in range(4):
        rows = slice(2 * part, 2 * part + 2)
        plain.seed_dropout(3, part)
        share = plain.loss_fn(inputs[rows], targets[rows]) / 4
        share.backward()
        expected += share.item()
    squares = sum(p.grad.square().sum() for p in plain.model.parameters())
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert norm.item() == pytest.approx(squares.sqrt().item(), rel=1e-4)


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


def test_the_dropout_of_a_seed_stays_what_it_was(make):
    """Or a run that goes on after an update of the code is another one from there."""
    made = make()
    for stream, purpose in ((0, "dropout"), (3, "dropout3")):
        torch.manual_seed(seeds.seed(made.cfg.seed, purpose, 7))
        expected = torch.rand(8)
        made.seed_dropout(7, stream)
        assert torch.equal(torch.rand(8), expected)


AUTO = ("train.batch_size=8", "train.micro_batch=auto")


def test_a_batch_that_does_not_fit_goes_on_in_halves_until_it_does(make):
    plain, made = make(), make(torch.float32, *AUTO)
    failpoint.switch_on("train.forward=memory@1-2")
    found = made.train_on(0, step=0)
    assert made.micro_batch == 2
    torch.testing.assert_close(found, plain.train_on(0, step=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(bits(made)[0], bits(plain)[0], rtol=1e-4, atol=1e-6)


def test_half_a_gradient_of_a_step_that_did_not_fit_is_freed_and_not_counted(make, monkeypatch):
    plain, made, is_free = make(), make(torch.float32, *AUTO), []
    gradients = made.gradients

    def begin(inputs, targets):
        is_free.append(all(p.grad is None for p in made.model.parameters()))
        return gradients(inputs, targets)

    monkeypatch.setattr(made, "gradients", begin)
    made.micro_batch = 4
    failpoint.switch_on("train.forward=memory@2")  # with the gradient of four windows in place
    numbers = made.train_on(0, step=0)
    assert is_free == [True, True] and made.micro_batch == 2
    torch.testing.assert_close(numbers, plain.train_on(0, step=0), rtol=1e-4, atol=0)


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


@pytest.mark.parametrize(
    ("micro_batch", "n_parts", "said"),
    [
        (0, 0, "8 windows of X; train.micro_batch=4 takes less, and train.micro_batch=auto"),
        (3, 0, "3 windows of X; train.micro_batch=2 takes less, and train.micro_batch=auto"),
        (2, 0, "2 windows of X; train.micro_batch=1 takes less, and train.micro_batch=auto"),
        (
            1,
            0,
            "1 windows of X; a smaller model.context_len takes less, and train.micro_batch=auto",
        ),
        (0, 4, "2 windows of X; train.parts=8 takes less"),
        (0, 8, "1 windows of X; a smaller model.context_len takes less"),
    ],
)
def test_what_does_not_fit_is_told_with_what_takes_less(micro_batch, n_parts, said, make):
    made = make(torch.float32, "train.batch_size=8")
    made.micro_batch, made.n_parts = micro_batch, n_parts
    said = said.replace("X", "model.context_len=16 at a time, of train.batch_size=8")
    said = said.replace("=auto", "=auto finds what fits")
    assert made.too_large(5) == f"out of memory at step 5: {said}"


def test_weights_that_leave_no_room_for_a_batch_are_told_with_the_room_there_was(make, monkeypatch):
    made = make(torch.float32, "train.batch_size=8")
    weights = sum(p.nbytes for p in made.model.parameters())
    monkeypatch.setattr(update.footprint, "n_bytes", lambda model, cfg: weights + 50)
    monkeypatch.setattr(
        update.footprint,
        "describe",
        lambda model, cfg, room: f"{room - weights} for {model is made.model, cfg is made.cfg}",
    )
    made.room = 100  # beside the weights: twice what else they take
    assert "8 windows" in made.too_large(5)
    made.room = 99
    begin = "out of memory at step 5: 99 for (True, True)"
    assert made.too_large(5) == f"{begin}, or train.micro_batch=4"
    made.micro_batch = 1
    assert made.too_large(5) == begin


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
    """A number may be one of some steps alone."""

    def tensors(numbers):
        return {name: torch.tensor(value) for name, value in numbers.items()}

    unread = update.UnreadNumbers()
    assert unread.read() == []
    named = [(3, {"loss": 2.0, "grad_norm": 0.5}), (4, {"loss": 1.0, "grad_norm": 0.25})]
    named.append((5, {"loss": 3.0, "grad_norm": 0.125, "noise": 4.0}))
    for step, numbers in named:
        unread.add(step, tensors(numbers))
    assert unread.read() == named
    assert unread.read() == []
    unread.add(5, tensors(named[0][1]))
    unread.clear()
    assert unread.read() == []
    unread.add(6, tensors(named[1][1]))
    assert unread.read() == [(6, named[1][1])]


@pytest.mark.parametrize(
    ("word", "device", "seconds", "expected"),
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
    word, device, seconds, expected
):
    assert update.should_compile(word, torch.device(device), lambda: seconds) == expected
