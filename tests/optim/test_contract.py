"""What an optimizer or a schedule of one's own does wrong is told in one line, and names it."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from lm import config
from lm.optim import contract
from lm.system.errors import ConfigError


@pytest.fixture
def model():
    return config.MLPConfig(context_len=8, n_embd=4, n_hidden=4).build(11)


def sgd(model, **group):
    return torch.optim.SGD(model.parameters(), **({"lr": 0.1} | group))


def failing(cfg, model):
    raise RuntimeError("a mistake\nof two lines")


OPTIMIZERS = {  # what `builds` names -> what the error says
    "params": (lambda params, lr, betas, eps: None, "takes (params, lr, betas, eps)"),
    "nothing": (lambda cfg, model: None, "gave a NoneType: give a torch.optim.Optimizer"),
    "module": (lambda cfg, model: [model], "gave a MLP"),
    "mapping": (lambda cfg, model: {"a": sgd(model)}, "gave a dict"),
    "none moved": (lambda cfg, model: [], "no optimizer moves wte.weight"),
    "twice": (lambda cfg, model: [sgd(model), sgd(model)], "several optimizers move wte.weight"),
    "rate": (lambda cfg, model: sgd(model, lr=torch.tensor(0.1)), "lr=0.1"),
    "failing": (failing, "RuntimeError: a mistake of two lines"),
}


@dataclass
class OwnConfig(config.AdamWConfig):  # not of OptimizerConfig: it would be a choice in all tests
    builds: ClassVar[str] = "tests.optim.test_contract:own"
    name: str = "own"


own = None  # what the dataclasses build, set by each test


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_an_optimizer_that_breaks_its_contract_is_told_how(case, model, monkeypatch):
    """Of three attempts by the README's sentence each ended in a traceback: the arguments, a
    single optimizer that was no list, groups without base_lr."""
    make, told = OPTIMIZERS[case]
    monkeypatch.setattr("tests.optim.test_contract.own", make)
    with pytest.raises(ConfigError) as found:
        contract.build_optimizers(OwnConfig(), model)
    text = str(found.value)
    assert told in text and text.startswith("optimizer=own: tests.optim.test_contract:own ")
    assert "\n" not in text


class Stuck(torch.optim.SGD):
    def step(self, closure=None):
        return self.param_groups[0]["no_such_key"]


def test_a_step_that_fails_is_told_with_its_line_and_our_own_mistake_with_its_traceback(model):
    stuck = Stuck(model.parameters(), lr=0.1)
    told = r"optimizer=own: .*test_contract.py:\d+: KeyError"
    with pytest.raises(ConfigError, match=told), contract.told(OwnConfig()):
        stuck.step()
    with pytest.raises(KeyError), contract.told(config.AdamWConfig()):
        stuck.step()


def test_a_mistake_that_pytorch_finds_is_told_at_one_s_own_line(model, monkeypatch):
    make = lambda params, lr: torch.optim.SGD(params, lr=lr)  # noqa: E731
    monkeypatch.setattr("tests.optim.test_contract.own", make)
    with pytest.raises(ConfigError, match=r"test_contract.py:\d+: TypeError"):
        contract.build_optimizers(OwnConfig(), model)


@pytest.mark.parametrize(
    "make", [lambda cfg, model: sgd(model), lambda cfg, model, dtype: [sgd(model)]]
)
def test_an_optimizer_is_given_alone_or_in_a_list(make, model, monkeypatch):
    monkeypatch.setattr("tests.optim.test_contract.own", make)
    (optimizer,) = contract.build_optimizers(OwnConfig(), model)
    assert optimizer.param_groups[0]["base_lr"] == pytest.approx(0.1 * model.cfg.lr_scale)


@dataclass
class OwnScheduleConfig(config.ConstantConfig):
    builds: ClassVar[str] = "tests.optim.test_contract:own"
    name: str = "own"


SCHEDULES = {
    "arguments": (lambda step: 1.0, "must take (cfg, progress), and takes (step)"),
    "words": (lambda cfg, progress: "high", "gave high at 0 of the run"),
    "negative": (lambda cfg, progress: 0.5 - progress, "gave -0.0"),
    "nan": (lambda cfg, progress: float("nan"), "gave nan at 0 of the run"),
    "division": (lambda cfg, progress: 1 / progress, "ZeroDivisionError"),
    "zero": (lambda cfg, progress: 0, "nothing would be learned"),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_a_schedule_that_breaks_its_contract_is_told_how(case, monkeypatch):
    make, told = SCHEDULES[case]
    monkeypatch.setattr("tests.optim.test_contract.own", make)
    with pytest.raises(ConfigError) as found:
        contract.check_schedule(OwnScheduleConfig())
    assert told in str(found.value) and str(found.value).startswith("schedule=own: ")


@pytest.mark.parametrize("name", config.options("schedule"))
def test_the_schedules_of_lm_keep_the_contract(name):
    contract.check_schedule(config.options("schedule")[name]())


@pytest.mark.parametrize("builds", ["", "lm.optim", "no_such_module:x", "lm.optim.groups:no"])
def test_what_builds_names_must_be_there(builds, model, monkeypatch):
    monkeypatch.setattr(OwnConfig, "builds", builds)
    with pytest.raises(ConfigError, match="optimizer=own: builds = "):
        contract.build_optimizers(OwnConfig(), model)
