"""Settings carried over from a base: factors as the table says, and sizes that no width changes."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from lm import config, metrics
from lm.huggingface import rotary_weights, weights
from lm.models import parametrization
from lm.models.base import LanguageModel
from lm.models.parametrization import Factors
from lm.optim.contract import build_optimizers
from lm.system.errors import ConfigError
from tests.models import small

V = 29
WIDE = {"n_embd": 64, "n_head": 8, "base_width": 16, "base_n_head": 2}  # 4 times as wide
TRAINED = ["transformer", "gpt2", "llama-gqa", "gru", "mlp"]


def build(cfg) -> LanguageModel:
    torch.manual_seed(0)
    return cfg.build(V)


def transformer(**values) -> LanguageModel:
    return build(config.TransformerConfig(context_len=16, n_layer=4, **values))


@pytest.mark.parametrize("optimizer", [config.AdamWConfig(), config.MuonConfig(weight_decay=0.1)])
@pytest.mark.parametrize("name", TRAINED)
def test_the_base_itself_has_the_weights_and_rates_of_a_model_without_one(name, optimizer):
    cfg = small.SETTINGS[name]
    depth = cfg.n_layer if isinstance(cfg, config.TransformerConfig) else 0
    plain = build(dataclasses.replace(cfg, base_width=0, base_depth=0))
    same = build(dataclasses.replace(cfg, base_width=cfg.n_embd, base_depth=depth))
    pairs = zip(plain.parameters(), same.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    for a, b in zip(optimizer.build(plain), optimizer.build(same), strict=True):
        assert {(g["base_lr"], g["weight_decay"]) for g in a.param_groups} == {
            (g["base_lr"], g["weight_decay"]) for g in b.param_groups
        }


def test_factors_are_those_of_the_table():
    model = transformer(**WIDE, base_depth=2, bias=True, tie=False)
    found = parametrization.adamw_factors(model)
    assert found["wte.weight"] == Factors(1, 1, 1, 1 / 4)
    assert found["blocks.3.attn.qkv.weight"] == Factors(1 / 2, 1 / 4, 4, 1 / 8)
    assert found["blocks.0.mlp.down.weight"] == Factors(1 / 4, 1 / 8, 8, 1 / 4)
    assert found["blocks.0.mlp.down.bias"] == Factors(1 / 2, 1 / 2, 1, 1 / 4)
    assert found["blocks.0.norm_mlp.weight"] == Factors(1, 1, 1, 1 / 8)
    assert found["head.weight"] == Factors(1 / 4, 1 / 4, 4, 1)
    assert found["norm.weight"] == Factors()
    tied = parametrization.adamw_factors(transformer(**WIDE))
    assert tied["norm.weight"] == Factors(1 / 4, 1 / 4, 4, 1)
    muon = parametrization.muon_factors(model)
    assert muon["blocks.0.attn.qkv.weight"] == Factors()
    assert muon["blocks.0.attn.proj.weight"] == Factors(lr=1 / 2, decay=2)


def test_initial_sizes_follow_the_ratio():
    model = transformer(**WIDE, base_depth=1)
    assert model.blocks[0].mlp.up.weight.std().item() == pytest.approx(0.02 / 2, rel=0.05)
    end = 0.02 / 2**0.5 / 4 / 2  # of one layer; of 4, each a fourth; a fourth of the width
    assert model.blocks[0].mlp.down.weight.std().item() == pytest.approx(end, rel=0.05)
    assert torch.equal(model.norm.weight, torch.full((64,), 0.25))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_takes_the_share_of_a_weight_that_it_takes_at_the_base(name):
    """Rate times decay: AdamW and Muon shrink a weight by it at each step."""
    model = transformer(**WIDE, base_depth=2)
    cfg = config.options("optimizer")[name](lr=0.01, weight_decay=0.5)
    for optimizer in build_optimizers(cfg, model):
        for group in optimizer.param_groups:
            share = group["base_lr"] * group["weight_decay"]
            assert share == pytest.approx(0.005) or group["weight_decay"] == 0


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_each_parameter_that_adamw_moves_has_the_eps_of_its_factors(name):
    model = transformer(**WIDE, base_depth=2)
    factors = parametrization.adamw_factors(model)
    names = {id(p): name for name, p in model.named_parameters()}
    adamw = build_optimizers(config.options("optimizer")[name](eps=1e-6), model)[-1]
    found = {names[id(p)]: group["eps"] for group in adamw.param_groups for p in group["params"]}
    assert found == pytest.approx({name: 1e-6 * factors[name].eps for name in found})
    assert len(set(found.values())) == 3  # 1/m, 1/(m d) and 1 of the base's


def test_muon_moves_what_has_the_role_of_a_hidden_matrix():
    model = transformer(**WIDE)
    muon, adamw = build_optimizers(config.MuonConfig(lr=0.05), model)
    names = {id(p): name for name, p in model.named_parameters()}
    moved = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert moved == set(parametrization.muon_factors(model))
    assert {group["base_lr"] for group in muon.param_groups} == {0.05}
    assert sorted(group["base_lr"] for group in adamw.param_groups) == pytest.approx([0.0025, 0.01])


def changes(cfg, optimizer) -> float:
    """How far three steps on one batch move what the last hidden layer gives."""
    model = build(cfg)
    optimizers = build_optimizers(optimizer, model)
    ids = small.batch(2, 9)
    before = hidden(model, ids)
    for _ in range(3):
        metrics.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
        for one in optimizers:
            one.step()
            one.zero_grad()
    return (hidden(model, ids) - before).square().mean().sqrt().item()


def hidden(model, ids) -> torch.Tensor:
    seen = []
    inside = model.get_submodule(model.hidden[-1])
    last = [inside, *inside.children()][-1]
    handle = last.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        model(ids[:, :-1])
    handle.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


KINDS = {
    "transformer": lambda n, base: config.TransformerConfig(
        context_len=16, n_layer=1, n_head=2, n_embd=n, base_width=base
    ),
    "gpt2": lambda n, base: dataclasses.replace(
        small.SETTINGS["gpt2"], n_layer=1, n_head=2, n_embd=n, base_width=base
    ),
    "llama": lambda n, base: dataclasses.replace(
        small.SETTINGS["llama-gqa"], n_layer=1, n_embd=n, base_width=base
    ),
    "gru": lambda n, base: config.GRUConfig(n_embd=n, n_hidden=n, base_width=base),
    "mlp": lambda n, base: config.MLPConfig(n_embd=n, n_hidden=n, base_width=base, window=2),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_steps_change_in_activations_does_not_depend_on_the_width(name):
    """And without a base it grows with the width."""
    widths = [32, 64, 128, 256]
    optimizer = config.AdamWConfig(lr=3e-3)

    def slope(base: int) -> float:
        sizes = [changes(KINDS[name](n, base), optimizer) for n in widths]
        return float(np.polyfit(np.log(widths), np.log(sizes), 1)[0])

    assert abs(slope(32)) < 0.15
    assert slope(0) > 0.3


def test_scores_of_wider_heads_are_divided_by_their_width():
    cfg = config.TransformerConfig(n_embd=128, n_head=2, base_width=32)
    assert parametrization.score_factor(cfg) == 0.5  # of heads of 64 in place of 16
    assert parametrization.score_factor(config.TransformerConfig(**WIDE)) == 1.0


def test_an_export_computes_the_model_with_scores_scaled():
    """Hugging Face's classes divide scores by sqrt(D): the factor goes into the queries."""
    cfg = dataclasses.replace(small.SETTINGS["llama-gqa"], n_embd=64, base_width=16)
    model = build(cfg).eval()
    with torch.no_grad():
        for p in model.blocks.parameters():
            p.mul_(10)
    plain = build(dataclasses.replace(cfg, base_width=0)).eval()
    theirs = {name.removeprefix("model."): t for name, t in weights.to_hf(model).items()}
    plain.load_state_dict(rotary_weights.from_family(plain, theirs, "llama"), strict=False)
    ids = small.batch()
    assert model.blocks[0].attn.score_factor == 0.5
    assert torch.allclose(plain(ids), model(ids), atol=1e-5)


@pytest.mark.parametrize(
    ("cls", "values", "text"),
    [
        (config.TransformerConfig, {"n_embd": 96, "base_width": 64}, "does not divide model.n_em"),
        (config.TransformerConfig, {"n_mlp": 401, "base_width": 64}, "divide model.n_mlp=401"),
        (config.TransformerConfig, {"n_embd": 32, "base_width": 64}, "does not divide model.n_em"),
        (config.TransformerConfig, {"n_embd": 96, "n_head": 12, "base_width": 16}, "base_n_head"),
        (config.TransformerConfig, {"n_head": 4, "base_n_head": 2}, "which is 0"),
        (
            config.TransformerConfig,
            {"n_head": 4, "n_kv_head": 1, "base_n_head": 2, "base_width": 64},
            "heads of keys",
        ),
        (config.MLPConfig, {"n_hidden": 255, "base_width": 32}, "divide model.n_hidden=255"),
        (config.MLPConfig, {"base_depth": 2}, "has no n_layer"),
        (config.BigramConfig, {"base_width": 64}, "model=bigram has no n_embd"),
        (config.NgramConfig, {"base_width": 64}, "model=ngram has no n_embd"),
    ],
)
def test_a_base_that_cannot_be_is_refused_in_one_line(cls, values, text):
    with pytest.raises(ConfigError) as error:
        cls(**values)
    assert text in str(error.value) and "\n" not in str(error.value)
    assert "model." in str(error.value)


def test_no_rule_is_known_for_the_depth_of_a_gru():
    with pytest.raises(ConfigError, match=r"base_depth=1: no rule is known for the depth of GRU"):
        config.GRUConfig(base_depth=1).build(V)


@dataclasses.dataclass
class OwnConfig(config.MLPConfig):  # no group lists what inherits from one of its parts
    builds: ClassVar[str] = f"{__name__}:Own"
    name: str = "own for transfer"
    n_embd: int = 32
    n_hidden: int = 32


class Own(LanguageModel):
    """A model as somebody writes one, with all that the rules need, or less."""

    stated: ClassVar[dict] = {"hidden": ("mix",), "readout": "head"}
    scales = True

    def __init__(self, cfg, vocab_size):
        super().__init__(cfg, vocab_size)
        for name, value in self.stated.items():
            setattr(self, name, value)
        self.wte = nn.Embedding(vocab_size, cfg.n_embd)
        self.mix = nn.Linear(cfg.n_embd, cfg.n_embd)
        self.head = nn.Linear(cfg.n_embd, vocab_size)
        if self.scales:
            self.scale_init()

    def forward(self, ids):
        return self.head(self.mix(self.wte(ids)).relu())


def test_a_model_of_ones_own_states_its_roles_or_is_refused(monkeypatch):
    cfg = OwnConfig(base_width=8)
    (adamw,) = build_optimizers(config.AdamWConfig(lr=0.4), build(cfg))
    assert {group["base_lr"] for group in adamw.param_groups} == {0.1, 0.4}
    monkeypatch.setattr(Own, "scales", False)
    with pytest.raises(ConfigError, match=r"Own must call self\.scale_init\(\)"):
        build_optimizers(config.AdamWConfig(), build(cfg))
    monkeypatch.setattr(Own, "stated", {"hidden": ("mix",)})
    with pytest.raises(ConfigError, match="Own does not state its roles"):
        build_optimizers(config.AdamWConfig(), build(cfg))
    monkeypatch.setattr(Own, "stated", {"hidden": ("wte",), "readout": "head"})
    with pytest.raises(ConfigError, match=r"Own does not say what mix\.weight is"):
        build_optimizers(config.AdamWConfig(), build(cfg))


@dataclasses.dataclass
class OwnOptimizerConfig(config.AdamWConfig):
    builds: ClassVar[str] = f"{__name__}:own_optimizer"
    name: str = "own optimizer for transfer"


def own_optimizer(cfg, model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def test_an_optimizer_without_rules_is_refused():
    with pytest.raises(ConfigError, match="no rule is known for the rates of optimizer=own"):
        build_optimizers(OwnOptimizerConfig(), transformer(**WIDE))
