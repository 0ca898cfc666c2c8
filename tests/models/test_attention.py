"""Attention, rotary positions and dropout against slow versions of themselves."""

import pytest
import torch
import torch.nn.functional as F

from lm.models import attention as attending
from lm.models.attention import attention, dropout, fastest_attention, rope_table, rotate
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


@pytest.mark.parametrize(("T", "goes"), [(5, 1), (8, 1), (19, 3), (70, 4)])
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


def test_rotate_equals_a_product_of_complex_numbers():
    x = torch.randn(9, 8)
    cos, sin = rope_table(9, 8, base=100.0)
    for rope in ((cos, sin), torch.complex(cos, sin)):
        turned = rotate(x.view(1, 9, 1, 8), rope).view(9, 8)
        torch.testing.assert_close(turned, reference.rope(x, base=100.0))


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
