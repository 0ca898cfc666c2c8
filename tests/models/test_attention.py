"""Attention, rotary positions and dropout against slow versions of themselves."""

import math

import pytest
import torch
import torch.nn.functional as F

from lm.config import TransformerConfig
from lm.models import attention as attending
from lm.models.attention import (
    Attention,
    attention,
    dropout,
    fastest_attention,
    rope_table,
    rotate,
)
from tests import reference


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


@pytest.mark.parametrize(("T", "goes"), [(5, 1), (8, 1), (10, 2), (19, 3), (70, 4)])
def test_attention_a_few_queries_at_a_time_has_the_values_and_gradients_of_the_kernel(
    T, goes, monkeypatch
):
    monkeypatch.setattr(attending, "MIN_CHUNK", 8)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, h, T, 8, requires_grad=True) for h in (6, 3, 3))
    fused = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    n, plain = [], attention
    monkeypatch.setattr(attending, "attention", lambda *args: n.append(1) or plain(*args))
    # Dropout that rounds to none: what float32 takes on a CPU when it drops out.
    parts = fastest_attention(q, k, v, None, 1e-9, causal=True)
    assert len(n) == goes
    torch.testing.assert_close(parts, fused)
    weights = torch.randn_like(fused)
    for a, b in zip(
        *(torch.autograd.grad(y, (q, k, v), weights) for y in (parts, fused)), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("length", [8, 20, 40])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_bfloat16_attention_on_a_cpu_is_the_kernel_s(length, groups, monkeypatch):
    monkeypatch.setattr(attending, "MIN_CHUNK", 8)  # in one go, in three, and by the kernel
    monkeypatch.setattr(attending, "MAX_WRITTEN_OUT", 20)
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, h, length, 8, generator=generator) for h in (4, groups, groups))
    exact = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    got = fastest_attention(*(t.bfloat16() for t in (q, k, v)), None, 0.0, True)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), exact, rtol=0.02, atol=0.02)  # 8 bits of precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_looks_where_the_mask_is_true(dtype):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8)
    mask = torch.rand(2, 1, 3, 9) < 0.5
    mask[..., 0] = True
    scores = q @ k.repeat_interleave(2, dim=1).mT / math.sqrt(8)
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    expected = weights @ v.repeat_interleave(2, dim=1)
    got = fastest_attention(*(t.to(dtype) for t in (q, k, v)), mask, 0.0, causal=False)
    assert got.dtype == dtype
    atol = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=atol)


def test_dropout_leaves_out_weights_of_the_softmax():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 6, 8).unbind()
    scores = q @ k.mT / math.sqrt(8)
    weights = (scores + torch.full((6, 6), -math.inf).triu(1)).softmax(-1)
    torch.manual_seed(1)
    got = fastest_attention(q, k, v, None, 0.5, causal=True)
    torch.manual_seed(1)
    torch.testing.assert_close(got, dropout(weights, 0.5) @ v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_drops_out_too(dtype, monkeypatch):
    monkeypatch.setattr(attending, "MAX_WRITTEN_OUT", 4)
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 2, 8, 8, dtype=dtype).unbind()
    v = torch.ones(1, 2, 8, 8, dtype=dtype)
    weights_sum = fastest_attention(q, k, v, None, 0.5, causal=True)
    assert (weights_sum - 1).abs().max() > 0.1
    weights_sum = fastest_attention(q, k, v, None, 0.0, causal=True)
    torch.testing.assert_close(weights_sum, v, rtol=0, atol=0.01)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("factor", [1, 0.5])
@torch.no_grad()
def test_the_layer_equals_its_parts_one_after_the_other(qk_norm, factor):
    torch.manual_seed(0)
    cfg = TransformerConfig(
        context_len=5, n_head=4, n_kv_head=2, n_embd=32, qk_norm=qk_norm, bias=True, dropout=0.5
    )
    layer = Attention(cfg, 0).eval()
    layer.score_factor = factor
    x = torch.randn(2, 5, 32)

    q, k, v = layer.qkv(x).split((32, 16, 16), dim=-1)
    q, k, v = (t.view(2, 5, -1, 8).transpose(1, 2) for t in (q, k, v))  # (B, H or G, T, D)
    if qk_norm:
        q, k = (t / t.square().mean(-1, keepdim=True).sqrt() for t in (q, k))
    q, k = (torch.stack([reference.rope(h, 100.0) for h in t.flatten(0, 1)]) for t in (q, k))
    q = factor * q.view(2, 4, 5, 8)
    k = k.view(2, 2, 5, 8).repeat_interleave(2, dim=1)  # heads 0 and 1 share the first
    v = v.repeat_interleave(2, dim=1)
    y = reference.attention(q, k, v)
    expected = layer.proj(torch.cat(y.unbind(1), dim=-1))  # the heads side by side

    rope = rope_table(5, 8, base=100.0)
    torch.testing.assert_close(layer(x, rope, None), expected, rtol=1e-4, atol=1e-5)
    layer.train()
    assert not torch.allclose(layer(x, rope, None), expected, rtol=0.01, atol=0.01)


def test_rotate_equals_a_product_of_complex_numbers():
    x = torch.randn(9, 8)
    cos, sin = rope_table(9, 8, base=100.0)
    for rope in ((cos, sin), torch.complex(cos, sin)):
        turned = rotate(x.view(1, 9, 1, 8), rope).view(9, 8)
        torch.testing.assert_close(turned, reference.rope(x, base=100.0))


def test_angles_of_far_positions_are_exact():
    """With frequencies in float32 they would be off by 0.0002 here."""
    cos, sin = rope_table(100_000, 16, base=10_000.0)
    assert cos.shape == sin.shape == (100_000, 1, 8)
    for i in range(8):
        angle = 99_999 * 10_000.0 ** (-2 * i / 16)
        assert cos[-1, 0, i].item() == pytest.approx(math.cos(angle), abs=1e-6)
        assert sin[-1, 0, i].item() == pytest.approx(math.sin(angle), abs=1e-6)


def test_rope_scores_depend_on_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 16)
    cos, sin = rope_table(64, 16, base=10_000.0)

    def score(i: int, j: int) -> float:
        return (rotate(q, (cos[i], sin[i])) * rotate(k, (cos[j], sin[j]))).sum().item()

    assert score(9, 4) == pytest.approx(score(45, 40), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)


def test_dropout_leaves_out_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    y = dropout(torch.ones(1000, 999), 0.2)
    assert y.unique().tolist() == pytest.approx([0, 256 / (256 - 51)])  # 0.2 is 51.2 of 256
    assert (y == 0).float().mean() == pytest.approx(51 / 256, abs=0.002)
    assert y.mean() == pytest.approx(1, abs=0.003)
    neighbours = (y[:, 1:] * y[:, :-1]).mean()  # drawn in the same 64 bits, and independent
    assert neighbours == pytest.approx(1, abs=0.005)


def test_the_dropout_layer_acts_in_training_alone():
    layer, x = attending.Dropout(0.5), torch.ones(1000)
    assert torch.equal(layer.eval()(x), x)
    assert layer.train()(x).unique().tolist() == [0, 2]
    assert attending.Dropout(0.0)(x) is x


@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_has_biases_where_they_are_asked_for(bias):
    layer = Attention(TransformerConfig(bias=bias), 0)
    assert (layer.qkv.bias is not None, layer.proj.bias is not None) == (bias, bias)
