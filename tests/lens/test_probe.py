"""The probe: what it records is what the model did, for every model."""

import pytest
import torch
from torch import nn

from lm import config
from lm.lens import attention, axes, probe
from lm.models.base import LanguageModel

V, T = 65, 12
SMALL = {
    "transformer": {"n_layer": 2, "n_head": 4, "n_embd": 32},
    "gru": {"n_embd": 16, "n_hidden": 24},
    "mlp": {"n_embd": 16, "n_hidden": 24, "window": 4},
}


def make(name: str, **settings) -> LanguageModel:
    torch.manual_seed(0)
    cls = config.options("model")[name]
    model = cls(**{"context_len": 16, **SMALL.get(name, {}), **settings}).build(V)
    model.fit(torch.randint(0, V, (500,)).numpy())
    with torch.no_grad():
        for p in model.parameters():  # away from zero tables and tiny heads
            p.copy_(torch.randn_like(p) * 0.2)
    return model.eval()


IDS = torch.randint(0, V, (1, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", sorted(config.options("model")))
def test_every_model_is_recorded_and_left_as_it_was(name):
    model = make(name).train()
    before = [p.clone() for p in model.state_dict().values()]
    trace = probe.record(model, IDS)
    assert model.training
    assert torch.equal(trace.logits, model.eval()(IDS))
    assert trace.steps and trace.steps[-1].output == (1, T, V)
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["transformer", "gru", "mlp", "bigram"])
def test_every_parameter_appears_in_some_step(name):
    model = make(name)
    steps = probe.record(model, IDS).steps
    assert {key for step in steps for key in step.params} == {
        n for n, _ in model.named_parameters()
    }


@pytest.mark.parametrize("name", ["transformer", "gru", "mlp", "bigram"])
def test_flops_equal_the_models_own_count(name):
    """The model counts forward and backward (three times the forward) over a full context."""
    model = make(name, context_len=T)
    assert probe.record(model, IDS).flops * 3 == model.flops_per_token() * T


@pytest.mark.parametrize(
    "settings", [{}, {"n_kv_head": 2}, {"positions": "learned", "qk_norm": False}]
)
def test_attention_weights_are_causal_shares_that_give_the_kernels_result(settings):
    found = probe.record(make("transformer", **settings), IDS).attention
    assert [a.path for a in found] == ["blocks.0.attn", "blocks.1.attn"]
    for a in found:
        assert a.weights.shape == (1, 4, T, T)
        assert torch.equal(a.weights, a.weights.tril())
        torch.testing.assert_close(a.weights.sum(-1), torch.ones(1, 4, T))
        assert 0 < a.error < 1e-5
        assert a.values.shape == (1, 4, T, 8)


def test_a_kernel_that_differs_from_the_plain_softmax_is_not_believed(monkeypatch):
    model = make("transformer")
    true = attention.plain_attention

    def wrong(*args):
        *rest, mixed = true(*args)
        return *rest, mixed + 1e-3

    monkeypatch.setattr(attention, "plain_attention", wrong)
    with pytest.raises(AssertionError, match=r"blocks\.0\.attn: the plain softmax differs"):
        probe.record(model, IDS)


def test_axes_are_named_by_what_they_grow_with():
    """T and C are both 12 here, B T H and D too close for sizes alone to tell."""
    model = make("transformer", n_embd=T, n_head=2, context_len=T)
    trace, rows = axes.with_axes(model, IDS)
    letters = {
        (step.path, step.kind): "".join(a.letter or "." for a in row)
        for step, row in zip(trace.steps, rows, strict=True)
    }
    assert letters["wte", "Embedding"] == "BTC"
    assert letters["blocks.0.attn", "scores"] == "BHTT"
    assert letters["blocks.1.attn", "weighted sum"] == "BHTD"
    assert letters["", "linear"] == "BTV"


@pytest.mark.parametrize(
    "settings",
    [{}, {"n_kv_head": 2}, {"activation": "swiglu"}, {"positions": "learned", "qk_norm": False}],
)
def test_every_axis_has_a_letter_and_the_residual_sums_are_seen(settings):
    trace, rows = axes.with_axes(make("transformer", **settings), IDS)
    assert all(axis.letter for row in rows for axis in row)
    inside = [s for s in trace.steps if s.path == "blocks.0"]
    assert [s.kind for s in inside] == ["add", "add"]
    assert inside[0].inputs == [(1, T, 32)] * 2 and "residual" in inside[0].note
    turned = [s for s in trace.steps if s.kind == "rotate"]
    assert len(turned) == (0 if settings.get("positions") == "learned" else 2)


def test_notes_give_the_sizes_of_heads():
    steps = probe.record(make("transformer", n_kv_head=2), IDS).steps
    notes = {(s.path, s.kind): s.note for s in steps}
    assert notes["blocks.0.attn.qkv", "Linear"] == (
        "32 numbers for the query, 16 for the key, 16 for the value"
    )
    assert notes["blocks.0.attn", "key"] == "the 16 numbers of a position, as 2 heads of 8"
    assert notes["blocks.0.attn.proj", "Linear"].endswith("4 x 8 = 32 numbers")


def test_a_note_gives_the_rows_of_stacked_matrices():
    steps = probe.record(make("gru"), IDS).steps
    (gru,) = [step for step in steps if step.kind == "GRU"]
    assert gru.note == "24 + 24 + 24 outputs"


def test_a_window_of_positions_and_a_sum_over_them_are_steps():
    trace, rows = axes.with_axes(make("mlp"), IDS)
    (i,) = [i for i, s in enumerate(trace.steps) if s.kind == "unfold"]
    assert [a.letter for a in rows[i]] == ["B", "T", "C", "W"]

    class Mean(make("bigram").__class__):
        def forward(self, ids):
            x = super().forward(ids)
            return torch.cat((x.cumsum(1), x), dim=-1)[..., :V]

    kinds = [s.kind for s in probe.record(Mean(config.BigramConfig(context_len=16), V), IDS).steps]
    assert kinds[-2:] == ["cumsum", "cat"]


@pytest.mark.parametrize(
    ("settings", "kind", "constants"),
    [
        ({"embed_norm": True, "norm_eps": 1e-3}, "rms_norm", {"eps": 1e-3}),
        ({"norm": "layernorm", "norm_eps": 1e-3}, "LayerNorm", {"eps": 1e-3}),
        ({"activation": "gelu"}, "gelu", {"by_tanh": 1.0}),
        ({}, "scores", {"scale": pytest.approx(8**-0.5)}),
        ({"softcap": 5.0}, "mul", {"factor": 5.0}),
    ],
)
def test_the_constants_of_a_step_are_those_of_its_call(settings, kind, constants):
    """The norm of the embedding was shown without its eps, 1.4% off before training."""
    steps = probe.record(make("transformer", **settings), IDS).steps
    assert next(step for step in steps if step.kind == kind).constants == constants
    assert steps[-1].kind == ("mul" if "softcap" in settings else "linear")


def test_a_tied_head_is_said_to_use_the_embeddings_matrix():
    last = probe.record(make("transformer", tie=True), IDS).steps[-1]
    assert last.params == {"wte.weight": (V, 32)} and last.note.startswith("tied")


class ByHand(LanguageModel):
    """A model of somebody's own: attention written out, parameters without modules."""

    def __init__(self, cfg, vocab_size):
        super().__init__(cfg, vocab_size)
        self.table = nn.Parameter(torch.randn(vocab_size, 8) * 0.3)

    def forward(self, ids):
        x = self.table[ids]  # (B, T, C)
        scores = x @ x.mT
        mask = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        x = scores.masked_fill(mask, -torch.inf).softmax(-1) @ x
        return x @ self.table.T


def test_a_model_of_ones_own_shows_its_attention_and_shapes():
    model = ByHand(config.BigramConfig(context_len=16), V)
    trace, rows = axes.with_axes(model, IDS)
    assert [s.kind for s in trace.steps] == ["matmul", "softmax", "matmul", "matmul"]
    assert trace.attention[0].weights.shape == (1, 1, T, T)
    assert [a.letter for a in rows[-1]] == ["B", "T", "V"]
