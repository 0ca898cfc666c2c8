"""Every parameter has one optimizer, at the rate and decay its kind should have."""

import copy

import pytest
import torch
from torch import nn

from lm import config
from lm.models.base import LanguageModel
from lm.optim.groups import AdamW, avoid_compiler_import, check_partition, skips_by_itself
from lm.optim.muon import Muon

V = 11
MODELS = {name: cls(context_len=8) for name, cls in config.options("model").items()} | {
    "llama": config.TransformerConfig(activation="swiglu", tie=False, context_len=8, n_kv_head=2)
}


def names_by_optimizer(model, optimizers) -> dict[tuple[str, float], set[str]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        (type(o).__name__, group["weight_decay"]): {names[id(p)] for p in group["params"]}
        for o in optimizers
        for group in o.param_groups
    }


@pytest.mark.parametrize("optimizer", config.options("optimizer"))
@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_one_optimizer_and_a_base_rate(name, optimizer):
    model = MODELS[name].build(V)
    optimizers = config.options("optimizer")[optimizer]().build(model)
    check_partition(model, optimizers)
    groups = [group for o in optimizers for group in o.param_groups]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    scale = MODELS[name].lr_scale
    assert all(group["base_lr"] == group["lr"] * scale > 0 for group in groups)
    assert (optimizers == []) == (not list(model.parameters()))


def test_weight_decay_is_for_matrices_without_embeddings():
    model = config.TransformerConfig(bias=True, norm="layernorm", positions="learned").build(V)
    groups = names_by_optimizer(model, config.AdamWConfig(weight_decay=0.3).build(model))
    assert groups["AdamW", 0.3] == {
        n for n, p in model.named_parameters() if "blocks" in n and p.ndim == 2
    }
    assert {"wte.weight", "wpe.weight", "norm.weight"} <= groups["AdamW", 0.0]


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = config.TransformerConfig(n_layer=2, tie=False).build(V)
    muon, adamw = config.MuonConfig(lr=0.05, adamw_lr=0.001).build(model)
    matrices = {id(p) for p in model.blocks.parameters() if p.ndim == 2}
    assert isinstance(muon, Muon) and isinstance(adamw, torch.optim.AdamW)
    assert {id(p) for group in muon.param_groups for p in group["params"]} == matrices
    assert {group["lr"] for group in muon.param_groups} == {0.05}
    assert {group["lr"] for group in adamw.param_groups} == {0.001}


def test_muon_knows_queries_keys_values_and_gates_apart():
    model = config.TransformerConfig(n_embd=32, n_head=4, n_kv_head=2, activation="swiglu").build(V)
    muon = config.MuonConfig().build(model)[0]
    parts = {group["parts"] for group in muon.param_groups}
    assert parts == {(32, 16, 16), (88, 88), None}
    gru = config.GRUConfig(n_hidden=24).build(V)
    assert [g["parts"] for g in config.MuonConfig().build(gru)[0].param_groups] == [(24, 24, 24)]


def test_parts_survive_a_copy_of_the_model():
    model = copy.deepcopy(config.TransformerConfig(n_layer=1).build(V))
    parts = {group["parts"] for group in config.MuonConfig().build(model)[0].param_groups}
    assert (128, 128, 128) in parts


def test_a_model_without_hidden_matrices_gets_adamw_alone():
    model = config.BigramConfig().build(V)
    (adamw,) = config.MuonConfig().build(model)
    assert isinstance(adamw, torch.optim.AdamW)


@pytest.mark.parametrize("name", config.options("optimizer"))
def test_our_optimizers_skip_a_step_by_themselves_where_found_inf_says_so(name):
    model = config.TransformerConfig(n_layer=1, n_embd=16, n_head=2).build(V)
    optimizers = config.options("optimizer")[name](weight_decay=0.1).build(model)

    def step(found_inf: float, gradient: float) -> list[torch.Tensor]:
        for p in model.parameters():
            p.grad = torch.full_like(p, gradient)
        for optimizer in optimizers:
            assert skips_by_itself(optimizer)
            optimizer.found_inf = torch.tensor(found_inf)
            optimizer.step()
        return [p.detach().clone() for p in model.parameters()]

    once = step(0.0, 1.0)
    skipped = step(1.0, torch.nan)
    twice = step(0.0, -1.0)
    assert all(torch.equal(a, b) for a, b in zip(once, skipped, strict=True))
    assert all(
        b.isfinite().all() and not torch.equal(a, b) for a, b in zip(once, twice, strict=True)
    )


def test_an_optimizer_that_does_not_say_so_never_skips_by_itself():
    weights = [nn.Parameter(torch.zeros(2))]
    assert not skips_by_itself(torch.optim.SGD(weights))
    assert not skips_by_itself(torch.optim.AdamW(weights, foreach=True))
    assert not skips_by_itself(AdamW(weights, foreach=True))
    assert skips_by_itself(AdamW(weights, fused=True))


def test_each_optimizer_has_what_its_configuration_says():
    model = config.TransformerConfig(n_layer=1).build(V)
    own = {"lr": 0.05, "weight_decay": 0.3, "beta1": 0.7, "beta2": 0.8, "eps": 1e-5}
    muon, rest = config.MuonConfig(momentum=0.6, **own).build(model, torch.bfloat16)
    (alone,) = config.AdamWConfig(**own).build(model)
    assert muon.dtype == torch.bfloat16
    assert all(g["momentum"] == 0.6 and g["weight_decay"] == 0.3 for g in muon.param_groups)
    for adamw, lr in ((alone, 0.05), (rest, 0.2 * 0.05)):
        for group in adamw.param_groups:
            assert group["betas"] == (0.7, 0.8) and group["eps"] == 1e-5 and group["fused"]
            assert group["lr"] == pytest.approx(lr)


def test_adamw_returns_what_its_closure_does():
    assert AdamW([nn.Parameter(torch.zeros(2))], fused=True).step(lambda: 3.0) == 3.0


def test_methods_of_every_optimizer_are_marked_as_not_for_the_compiler(monkeypatch):
    """Without the mark the first call of one imports all of torch._dynamo."""
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = [getattr(torch.optim.Optimizer, name).__wrapped__ for name in names]
    for method in methods:
        monkeypatch.delattr(method, "__dynamo_disable", raising=False)
    avoid_compiler_import()
    assert [method.__dynamo_disable for method in methods] == methods


class Inside(LanguageModel):
    """An embedding and a vector stand between the matrices of its hidden part."""

    hidden = ("body",)

    def __init__(self):
        super().__init__(config.BigramConfig(), V)
        self.body = nn.Sequential(nn.Linear(3, 3), nn.Embedding(4, 3), nn.Linear(3, 5, bias=False))
        self.head = nn.Linear(5, V)


def test_muon_leaves_embeddings_and_vectors_inside_the_hidden_part_to_adamw():
    groups = names_by_optimizer(model := Inside(), config.MuonConfig().build(model))
    assert groups["Muon", 0.0] == {"body.0.weight", "body.2.weight"}
    assert groups["AdamW", 0.0] == {"body.0.bias", "body.1.weight", "head.weight", "head.bias"}


def test_a_hidden_part_that_is_not_there_is_told_with_those_that_are():
    model = Inside()
    model.hidden = ("bodies",)
    with pytest.raises(ValueError, match=r"Inside names bodies: it has \['body', 'head'\]"):
        config.MuonConfig().build(model)


def test_a_parameter_that_is_not_trained_needs_no_optimizer():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].requires_grad_(False)
    half = torch.optim.SGD(model[0].parameters(), lr=1.0)
    check_partition(model, [half])
    check_partition(model, [half, *[torch.optim.SGD(model[1].parameters(), lr=1.0)] * 2])


def test_strays_and_doubles_are_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    half = torch.optim.SGD(model[0].parameters(), lr=1.0)
    with pytest.raises(ValueError, match=r"no optimizer moves 1\.weight, 1\.bias"):
        check_partition(model, [half])
    both = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match=r"several optimizers move 0\.weight, 0\.bias"):
        check_partition(model, [half, both])


@pytest.mark.parametrize("name", config.options("optimizer"))
def test_a_resumed_optimizer_continues_bit_for_bit(name):
    def train(model, optimizers, steps):
        for step in steps:
            torch.manual_seed(step)
            ids = torch.randint(V, (2, 9))
            loss = nn.functional.cross_entropy(
                model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
            )
            model.zero_grad()
            loss.backward()
            for o in optimizers:
                for group in o.param_groups:
                    group["lr"] = group["base_lr"] * 0.5
                o.step()

    cfg = config.TransformerConfig(n_layer=1, n_embd=16, n_head=2)
    how = config.options("optimizer")[name]()
    torch.manual_seed(0)
    whole = cfg.build(V)
    half = copy.deepcopy(whole)
    train(whole, how.build(whole), range(4))
    optimizers = how.build(half)
    train(half, optimizers, range(2))
    again = how.build(half)
    for new, old in zip(again, optimizers, strict=True):
        new.load_state_dict(old.state_dict())
    train(half, again, range(2, 4))
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), half.parameters(), strict=True)
    )
