"""The measured length of a step: once a machine, and nothing of the run changes by it."""

import json

import pytest
import torch

from lm import config, setup, update
from lm.data.batches import Batches
from lm.system import pace
from tests.helpers import TINY_TRANSFORMER

V, T = 64, 16
IDS = torch.randint(V, (5000,), generator=torch.Generator().manual_seed(0)).numpy()


@pytest.fixture
def make(cfg, tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path / "cache"))

    def build(*words: str) -> update.Update:
        made = cfg(*tiny, *TINY_TRANSFORMER, *words)
        model = made.model.build(V)
        batches = Batches(IDS, made.train.batch_size, T, 0)
        cpu = torch.device("cpu")
        return update.Update(model, [], batches, made, cpu, torch.float32)

    return build


@pytest.fixture
def passes(monkeypatch):
    """The sizes of the passes that are measured."""
    sizes = []
    one_pass = update.Update.one_pass

    def counted(self):
        sizes.append(one_pass(self))
        return sizes[-1]

    monkeypatch.setattr(update.Update, "one_pass", counted)
    return sizes


def test_a_step_is_measured_once_for_each_model_batch_and_type(make, passes):
    first = make().seconds()
    assert 0 < first < 1
    assert len(passes) == pace.PASSES
    assert make().seconds() == first
    assert len(passes) == pace.PASSES
    for other in ("model.n_embd=32", "train.batch_size=2"):
        make(other).seconds()
    assert len(passes) == 3 * pace.PASSES


def test_measuring_leaves_weights_and_gradients_as_they_were(make):
    made = make()
    before = [p.clone() for p in made.model.parameters()]
    assert made.seconds() > 0
    assert all(map(torch.equal, before, made.model.parameters()))
    assert all(p.grad is None for p in made.model.parameters())


@pytest.mark.parametrize(
    ("words", "n_passes"),
    [((), 1), (("train.micro_batch=4",), 2), (("train.parts=4",), 4)],
)
def test_a_step_of_several_passes_takes_as_many_times_as_long(words, n_passes, make, monkeypatch):
    made = make("train.batch_size=8", *words)
    made.use_micro_batch(0)
    clock = iter(range(100))
    monkeypatch.setattr(pace.time, "thread_time", lambda: next(clock) / 100)
    assert pace.measure(made.one_pass) == pytest.approx(n_passes / 100)


def test_a_long_pass_is_not_made_again(make, passes, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(pace.time, "thread_time", lambda: float(next(clock)))
    assert pace.measure(make().one_pass) == 1
    assert len(passes) == 1


@pytest.mark.parametrize(
    "text", ["", "{}", '{"seconds": NaN}', '{"seconds": -1}', '{"seconds": "x"}']
)
def test_a_damaged_measurement_is_made_again(text, make, passes, tmp_path):
    make().seconds()
    (path,) = (tmp_path / "cache").glob("pace-*/pace.json")
    path.write_text(text, encoding="utf-8")
    seconds = make().seconds()
    assert json.loads(path.read_text(encoding="utf-8")) == {"seconds": seconds}
    assert len(passes) == 2 * pace.PASSES


def test_without_a_cache_to_write_to_a_step_is_measured_all_the_same(make, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    assert make().seconds() > 0
    assert "cannot write to the cache" in caplog.text


def test_a_batch_that_does_not_fit_is_told_of_by_its_first_step(make, monkeypatch, tmp_path):
    def one_pass(self):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(update.Update, "one_pass", one_pass)
    assert make().seconds() == float("inf")
    assert not list((tmp_path / "cache").glob("pace-*"))


def test_a_run_that_is_surely_short_is_not_measured(make, passes, monkeypatch):
    class Run:
        update = make()
        batches, model = update.batches, update.model
        budget = setup.Budget(1000)

    assert setup.seconds_uncompiled(Run) == 0.0
    assert not passes
    monkeypatch.setattr(setup, "SURELY_SHORT", 1.0)
    assert setup.seconds_uncompiled(Run) == 1000 * Run.update.seconds() > 0
    Run.budget = setup.Budget(0, config.TrainConfig(seconds=300.0))
    assert setup.seconds_uncompiled(Run) == 300.0
