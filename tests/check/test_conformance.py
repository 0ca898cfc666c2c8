"""The checks of a model find each broken promise."""

import pytest
import torch
from torch import nn

from lm import config
from lm.check import conformance, training_checks
from lm.check.bench import Bench, Broken
from lm.models.base import LanguageModel
from tests.helpers import TINY_TRANSFORMER

V = 37


class Good(LanguageModel):
    """A small model that keeps every promise, for the broken ones to differ from."""

    trouble = ""

    def __init__(self, cfg, vocab_size):
        super().__init__(cfg, vocab_size)
        self.wte = nn.Embedding(vocab_size, 32)
        self.gru = nn.GRU(32, 32, batch_first=True)
        self.head = nn.Linear(32, vocab_size)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.spare = nn.Parameter(torch.ones(3)) if self.trouble == "spare" else None
        self.secret = 1.0 + torch.rand(()).item() if self.trouble == "secret" else 1.0
        self.gain = torch.rand(32) if self.trouble == "plain tensor" else torch.ones(())
        self.hidden = ("gru", "layerz") if self.trouble == "group" else ("gru",)
        if self.trouble == "sure":
            nn.init.normal_(self.head.weight, std=3.0)
        if self.trouble == "stuck":
            self.gru.requires_grad_(False)

    def forward(self, ids):
        x = self.wte(ids) * self.gain
        if self.trouble == "future":
            x = x + 0.1 * x.mean(dim=1, keepdim=True)
        if self.trouble == "deaf":
            x = torch.cat([torch.zeros_like(x[:, :3]), x[:, 3:]], dim=1)
        h = self.gru(x)[0]
        if self.trouble == "constant":
            h = h * 0
        logits = self.head(h).float() * self.secret
        if self.trouble == "short":
            logits = logits[:, :, 1:]
        if self.trouble == "no number":
            logits = logits * float("nan")
        if self.trouble == "half":
            logits = logits.bfloat16()
        return logits

    def step(self, ids, state, lengths=None):
        logits = super().step(ids, state, lengths)
        return logits + 0.5 if self.trouble == "cache" else logits


def bench(trouble: str, monkeypatch) -> Bench:
    torch.manual_seed(0)
    monkeypatch.setattr(Good, "trouble", trouble)
    monkeypatch.setattr(config.BigramConfig, "builds", "tests.check.test_conformance:Good")
    cfg = config.Config(
        corpus=config.GrammarConfig(),
        tokenizer=config.ByteConfig(),
        model=config.BigramConfig(context_len=16),
        optimizer=config.AdamWConfig(),
        schedule=config.ConstantConfig(),
    )
    return Bench(cfg, V, torch.device("cpu"))


class Idle(torch.optim.SGD):
    def step(self, closure=None):
        pass


class Forgetful(torch.optim.SGD):
    """It remembers gradients where no checkpoint finds them."""

    @torch.no_grad()
    def step(self, closure=None):
        self.seen = getattr(self, "seen", 0) + 1
        for p in self.param_groups[0]["params"]:
            p.sub_(p.grad, alpha=0.1 * self.seen)


class Wild(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.div_(0.0)


OPTIMIZERS = {
    torch.optim.SGD: ("ok", "adamw moves every parameter"),
    Idle: ("failed", "did not move wte.weight"),
    Forgetful: ("failed", "otherwise after a resume"),
    Wild: ("failed", "infinite or not a number"),
}


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_an_optimizer_that_does_not_step_or_resume_is_found(cls, monkeypatch):
    made = bench("", monkeypatch)
    monkeypatch.setattr(config.AdamWConfig, "builds", "tests.check.test_conformance:chosen")
    chosen = lambda cfg, model: cls(model.parameters(), lr=0.1)  # noqa: E731
    monkeypatch.setattr("tests.check.test_conformance.chosen", chosen)
    (found,) = [found for found in conformance.examine(made) if found.name == "steps"]
    verdict, told = OPTIMIZERS[cls]
    assert found.verdict == verdict and told in found.detail


chosen = None  # what the test above lets `builds` name


def test_a_good_model_passes_every_check(monkeypatch):
    found = list(conformance.examine(bench("", monkeypatch)))
    assert [name for name, verdict, _ in found if verdict != "ok"] == []
    assert len(found) == len(conformance.CHECKS) == 13


@pytest.mark.parametrize(
    ("trouble", "check", "message"),
    [
        ("short", "shapes", "not (B, T, V)"),
        ("half", "shapes", "return them as float32"),
        ("future", "causality", "it sees the future"),
        ("deaf", "memory", "position 0 never reaches position 15"),
        ("sure", "first loss", "start the last layer with smaller weights"),
        ("constant", "one batch", "it does not learn"),
        ("cache", "cache", "step() and forward() differ by 0.5"),
        ("no number", "cache", "step() and forward() differ by nan"),
        ("no number", "causality", "by nan: it sees the future"),
        ("no number", "gradients", "is infinite or not a number"),
        ("secret", "save, load", "the loaded model answers differently"),
        ("plain tensor", "save, load", "answers differently: gain is not saved"),
        ("spare", "gradients", "no gradient reaches spare"),
        ("stuck", "gradients", "no gradient reaches gru.weight_ih_l0"),
    ],
)
def test_a_broken_promise_is_found_and_named(trouble, check, message, monkeypatch):
    function = conformance.CHECKS[check]
    with pytest.raises(Broken) as broken:
        function(bench(trouble, monkeypatch))
    assert message in str(broken.value)


def test_a_hidden_part_that_is_not_there_is_named_with_those_that_are(monkeypatch):
    found = {n: detail for n, _, detail in conformance.examine(bench("group", monkeypatch))}
    assert "names layerz: it has ['wte', 'gru', 'head']" in found["optimizers"]


def test_an_error_in_the_model_is_a_finding_and_the_rest_goes_on(monkeypatch):
    subject = bench("", monkeypatch)

    def crash(self, ids):
        raise RuntimeError("shapes cannot be\nmultiplied")

    monkeypatch.setattr(Good, "forward", crash)
    found = list(conformance.examine(subject))
    assert found[0] == ("shapes", "failed", "RuntimeError: shapes cannot be multiplied")
    assert len(found) == len(conformance.CHECKS)


@pytest.mark.parametrize("name", sorted(config.options("model")))
def test_every_model_of_the_package_keeps_its_promises(name, cfg):
    made = cfg(f"model={name}", *(TINY_TRANSFORMER if name == "transformer" else ()))
    made.model.context_len = 16
    train = torch.randint(0, V, (400,)).numpy()
    found = conformance.examine(Bench(made, V, torch.device("cpu"), train))
    assert [(n, d) for n, verdict, d in found if verdict == "failed"] == []


def test_what_one_batch_allows_is_the_entropy_of_its_own_continuations():
    ids = torch.tensor([[1, 2, 1, 3, 1, 2]])
    # after 1 come 2, 3, 2; after 2 comes 1; after 3 comes 1
    expected = (
        3 / 5 * -(2 / 3 * torch.log(torch.tensor(2 / 3)) + 1 / 3 * torch.log(torch.tensor(1 / 3)))
    )
    assert training_checks.lowest_loss(ids, memory=0) == pytest.approx(expected.item())
    assert training_checks.lowest_loss(ids, memory=5) == 0.0
