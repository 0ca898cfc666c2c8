"""What a GPU must do as the CPU does; without one the same tests run on the CPU, in tiny sizes.

python -m pytest -m gpu tests/gpu        # part of experiments/benchmarks/gpu.sh
"""

import copy
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lm import update
from lm.data.batches import Batches
from lm.generate import generate
from lm.models.base import LanguageModel
from lm.system import failpoint, memory
from tests.helpers import ROOT, TINY_TRANSFORMER, assert_same_run, start
from tests.models import small

pytestmark = pytest.mark.gpu
HAS_GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="no GPU here")
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
CPU = torch.device("cpu")
V, T = 64, 16
IDS = torch.randint(V, (5000,), generator=torch.Generator().manual_seed(0)).numpy()
LEARNED = [name for name in small.SETTINGS if name not in ("bigram_counts", "ngram")]


class PlainSgd(torch.optim.Optimizer):
    """An optimizer of a user's own: it knows nothing of found_inf."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"])


@pytest.fixture
def make(cfg, tiny):
    """make(device, dtype, words): an update of a tiny transformer, the same weights each time."""

    def build(device=DEVICE, dtype=torch.float32, *words: str) -> update.Update:
        made = cfg(*tiny, *TINY_TRANSFORMER, *words)
        torch.manual_seed(0)
        model = made.model.build(V).to(device)
        batches = Batches(IDS, 8, T, 0).to(device)
        optimizers = made.optimizer.build(model)
        return update.Update(model, optimizers, batches, made, device, dtype)

    return build


def losses(made: update.Update, n: int = 5) -> list[float]:
    return [made.step(number)["loss"].item() for number in range(n)]


@needs_gpu
@pytest.mark.parametrize("name", LEARNED)
def test_every_model_gives_the_logits_of_the_cpu(name):
    model: LanguageModel = small.build(name)
    ids = small.batch()
    with torch.inference_mode():
        expected = model(ids)
        found = copy.deepcopy(model).to(DEVICE)(ids.to(DEVICE)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@needs_gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_greedy_text_is_that_of_the_cpu(compiled):
    model = small.build("transformer")
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8]]

    def text(model, compiled):
        steps = generate(model, prompts, max_tokens=10, temperature=0, compiled=compiled)
        return list(steps)

    assert text(copy.deepcopy(model).to(DEVICE), compiled) == text(model, False)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_losses_are_those_of_the_cpu(optimizer, make):
    words = (f"optimizer={optimizer}",)
    exact = losses(make(CPU, torch.float32, *words))
    assert losses(make(DEVICE, torch.float32, *words)) == pytest.approx(exact, abs=1e-3)
    assert losses(make(DEVICE, torch.bfloat16, *words)) == pytest.approx(exact, abs=2e-2)


@needs_gpu
@pytest.mark.parametrize("word", ["on", "graphs"])
def test_a_compiled_step_is_the_plain_one(word, make):
    plain = losses(make())
    made = make(DEVICE, torch.float32, f"train.compile={word}")
    assert made.compile().startswith("compiled")
    assert losses(made) == pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "own"])
@pytest.mark.parametrize("fault", ["train.loss=nan", "train.grad=inf"])
def test_a_step_that_is_not_finite_changes_nothing(optimizer, fault, make):
    """Built-in optimizers skip it by found_inf, on a GPU without waiting; others are not called."""
    made = make(DEVICE, torch.float32, *([] if optimizer == "own" else [f"optimizer={optimizer}"]))
    if optimizer == "own":
        own = [PlainSgd(made.model.parameters())]
        made = update.Update(made.model, own, made.batches, made.cfg, DEVICE, torch.float32)
    made.step(0)
    before = copy.deepcopy([made.model.state_dict(), *(o.state_dict() for o in made.optimizers)])
    failpoint.switch_on(f"{fault}@1-2")
    assert not math.isfinite(sum(made.step(1).values()))
    after = [made.model.state_dict(), *(o.state_dict() for o in made.optimizers)]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    failpoint.switch_on("")
    assert math.isfinite(sum(made.step(2).values()))


def test_the_losses_that_nobody_read_yet_are_those_that_were_computed(make):
    expected = losses(make(), 6)
    made, unread = make(), update.UnreadNumbers()
    for number in range(6):
        unread.add(number, made.step(number))
    assert [numbers["loss"] for _, numbers in unread.read()] == expected


@needs_gpu
def test_micro_batch_auto_halves_where_the_memory_of_the_gpu_ends(make):
    """All memory but 300 MB is taken: 65,536 windows at a time do not fit, a part of them does."""
    made = make(DEVICE, torch.float32, "train.micro_batch=auto", "train.batch_size=8")
    rows = 1 << 16
    made.batches = Batches(IDS, rows, T, 0).to(DEVICE)
    made.cfg.train.batch_size = rows
    taken = torch.empty(memory.room(DEVICE) - (300 << 20), dtype=torch.uint8, device=DEVICE)
    assert math.isfinite(sum(made.train_on(0, 1).values()))
    assert 0 < made.micro_batch < rows
    del taken
    torch.cuda.empty_cache()


WAYS = {
    "plain": ("train.compile=off",),
    "compiled": ("train.compile=on", "train.dtype=bfloat16"),
    "graphs": ("train.compile=graphs", "train.dtype=bfloat16"),
}


@pytest.mark.faults
@pytest.mark.parametrize("way", WAYS if HAS_GPU else ["plain"])
def test_a_killed_run_goes_on_to_the_same_bits(way, tiny, tmp_path):
    words = (*tiny, *TINY_TRANSFORMER, *WAYS[way], f"train.device={DEVICE.type}")
    words = (*words, "train.steps=20", "train.save_every=6", "train.eval_every=10")
    assert start("lm.train", *words, "hydra.run.dir=whole").wait() == 0
    killed = start(
        "lm.train", *words, "hydra.run.dir=run", env={"LM_FAILPOINTS": "train.after_step=kill@15"}
    )
    assert killed.wait() == -signal.SIGKILL
    assert start("lm.train", "resume=run").wait() == 0
    assert_same_run(Path("whole"), Path("run"))


@pytest.mark.faults
@pytest.mark.skipif(HAS_GPU, reason="this is the trial of the script where there is no GPU")
def test_the_script_for_a_gpu_runs_each_step_in_tiny_sizes_and_changes_no_readme(tmp_path):
    script = ROOT / "experiments/benchmarks/gpu.sh"
    pages = {path: path.read_bytes() for path in script.parent.glob("*/README.md")}
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    env |= {"TINY": "1", "OUT": str(tmp_path / "found"), "OMP_NUM_THREADS": "1"}
    steps = ["training", "generation", "stacking", "profile"]
    done = subprocess.run([script, *steps], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (tmp_path / "found/steps.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", *steps]
    assert all(line.endswith(",0") for line in lines[1:])
    assert {path: path.read_bytes() for path in pages} == pages


def test_the_script_for_a_gpu_names_its_steps_where_one_is_unknown(tmp_path):
    script = ROOT / "experiments/benchmarks/gpu.sh"
    env = {**os.environ, "OUT": str(tmp_path / "found")}
    done = subprocess.run([script, "typo"], env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no step typo: correct training" in done.stderr
