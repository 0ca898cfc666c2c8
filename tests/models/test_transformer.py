"""The transformer's parts against slow versions of themselves, and the choices of its presets."""

import math

import pytest
import torch
import torch.nn.functional as F

from lm.config import TransformerConfig
from lm.models import transformer
from lm.models.transformer import Transformer, attention, rope_table, rotate
from tests import reference

V = 31


def make(**changes) -> Transformer:
    torch.manual_seed(0)
    sizes = {"context_len": 12, "n_layer": 2, "n_head": 4, "n_embd": 32}
    return TransformerConfig(**{**sizes, **changes}).build(V).eval()


def test_written_out_attention_equals_the_fused_kernel_and_the_loops():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 7, 8).unbind()
    fused = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attention(q, k, v), fused)
    torch.testing.assert_close(reference.attention(q, k, v), fused)


def test_the_gradient_of_written_out_attention_equals_that_of_the_fused_kernel():
    torch.manual_seed(0)
    qkv = torch.randn(3, 2, 3, 7, 8, requires_grad=True)
    weights = torch.randn(2, 3, 7, 8)
    (a,) = torch.autograd.grad((attention(*qkv.unbind()) * weights).sum(), qkv)
    fused = F.scaled_dot_product_attention(*qkv.unbind(), is_causal=True)
    (b,) = torch.autograd.grad((fused * weights).sum(), qkv)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("T", "goes"), [(5, 1), (8, 1), (19, 3), (70, 4)])
def test_attention_a_few_queries_at_a_time_has_the_values_and_gradients_of_the_kernel(
    T, goes, monkeypatch
):
    monkeypatch.setattr(transformer, "QUERIES", 8)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, h, T, 8, requires_grad=True) for h in (6, 3, 3))
    fused = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    n, plain = [], attention
    monkeypatch.setattr(transformer, "attention", lambda *args: n.append(1) or plain(*args))
    # Dropout that rounds to none: what float32 takes on a CPU when it drops out.
    parts = transformer.fused_attention(q, k, v, None, 1e-9, causal=True)
    assert len(n) == goes
    torch.testing.assert_close(parts, fused)
    weights = torch.randn_like(fused)
    for a, b in zip(
        *(torch.autograd.grad(y, (q, k, v), weights) for y in (parts, fused)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_rotate_equals_a_product_of_complex_numbers():
    x = torch.randn(9, 8)
    cos, sin = rope_table(9, 8, base=100.0)
    for rope in ((cos, sin), torch.complex(cos, sin)):
        turned = rotate(x.view(1, 9, 1, 8), rope).view(9, 8)
        torch.testing.assert_close(turned, reference.rope(x, base=100.0))


def test_a_model_compiled_or_in_bfloat16_does_not_need_complex_numbers(monkeypatch):
    model, ids = make(), torch.randint(V, (2, 12))
    fast = model(ids)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(model(ids), fast)
    monkeypatch.undo()
    torch.testing.assert_close(model.bfloat16()(ids), fast, atol=0.1, rtol=0)


def test_rope_scores_depend_on_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 16)
    cos, sin = rope_table(64, 16, base=10_000.0)

    def score(i: int, j: int) -> float:
        return (rotate(q, (cos[i], sin[i])) * rotate(k, (cos[j], sin[j]))).sum().item()

    assert score(9, 4) == pytest.approx(score(45, 40), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)


def test_a_model_with_written_out_attention_gives_the_same_logits(monkeypatch):
    model, ids = make(n_kv_head=2), torch.randint(V, (2, 12))
    fused = model(ids)

    def plain(q, k, v, mask, dropout, causal, enable_gqa):
        n = q.shape[1] // k.shape[1]
        assert mask is None and causal and enable_gqa
        return attention(q, k.repeat_interleave(n, 1), v.repeat_interleave(n, 1))

    monkeypatch.setattr(F, "scaled_dot_product_attention", plain)
    torch.testing.assert_close(model(ids), fused)


def test_a_tied_head_is_stored_and_counted_once():
    tied, untied = make(tie=True), make(tie=False)
    assert untied.n_params() - tied.n_params() == V * 32
    assert "head.weight" not in tied.state_dict() and "head.weight" in untied.state_dict()


def test_softcap_bounds_the_logits():
    model = make(softcap=2.0)
    model.wte.weight.data *= 1000
    assert model(torch.randint(V, (1, 12))).abs().max() <= 2.0


def test_dropout_acts_in_training_alone():
    model, ids = make(dropout=0.5), torch.randint(V, (1, 12))
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_flops_per_token_count_the_matrix_products_torch_counts():
    """torch's counter sees forward and backward of one batch; ours is a formula."""
    from torch.utils.flop_counter import FlopCounterMode

    model = make(activation="gelu", n_layer=3)
    ids = torch.randint(V, (2, 12))
    with FlopCounterMode(display=False) as counter:
        model(ids).sum().backward()
    attention_part = 12 * 3 * 32 * 12
    linear = counter.get_total_flops() / ids.numel() - attention_part
    ours = model.flops_per_token() - attention_part
    assert linear == pytest.approx(ours, rel=0.15)  # it counts the fused attention by other rules


def test_llamas_mlp_has_two_thirds_of_the_width_and_no_more_weights():
    plain, gated = make(activation="gelu"), make(activation="swiglu")
    size = [sum(p.numel() for p in m.blocks[0].mlp.parameters()) for m in (plain, gated)]
    assert size[1] == pytest.approx(size[0], rel=0.1)


@pytest.mark.parametrize("vocab_size", [65, 50_257])
@pytest.mark.parametrize("n_embd", [128, 768])
def test_first_loss_is_near_that_of_guessing_at_real_sizes(n_embd, vocab_size):
    torch.manual_seed(0)
    cfg = TransformerConfig(n_embd=n_embd, n_head=4, context_len=16, n_layer=2)
    ids = torch.randint(vocab_size, (4, 17))
    with torch.no_grad():
        logits = cfg.build(vocab_size)(ids[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()
    assert abs(loss - math.log(vocab_size)) < 0.5


def test_gpt2_and_llama_have_the_sizes_of_the_originals():
    gpt2 = TransformerConfig(
        context_len=1024, n_layer=12, n_head=12, n_embd=768, positions="learned",
        norm="layernorm", activation="gelu", qk_norm=False, bias=True,
    )  # fmt: skip
    with torch.device("meta"):
        assert Transformer(gpt2, 50_257).n_params() == 124_439_808


def test_dropout_leaves_out_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    y = transformer.dropout(torch.ones(1000, 999), 0.2)
    assert y.unique().tolist() == pytest.approx([0, 256 / (256 - 51)])  # 0.2 is 51.2 of 256
    assert (y == 0).float().mean() == pytest.approx(51 / 256, abs=0.002)
    assert y.mean() == pytest.approx(1, abs=0.003)
    neighbours = (y[:, 1:] * y[:, :-1]).mean()  # drawn in the same 64 bits, and independent
    assert neighbours == pytest.approx(1, abs=0.005)
