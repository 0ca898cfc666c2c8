"""oneDNN's product in place of MKL's: the same numbers, and only where it is meant to be."""

import pytest
import torch
import torch.nn.functional as F

from lm import update
from lm.system import onednn
from tests.models import small

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this PyTorch is without oneDNN"
)


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(onednn, "FASTER_HERE", True)
    monkeypatch.setattr(onednn, "MIN_PRODUCT", 0)
    monkeypatch.setattr(onednn, "MIN_LARGEST_PRODUCT", 0)


def products(n: int = 512, inputs: torch.Tensor | None = None, dtype=torch.float32):
    """For a model whose largest matrix has n x n numbers."""
    inputs = torch.zeros(8, 8) if inputs is None else inputs
    return onednn.products(torch.nn.Linear(n, n), inputs, dtype)


@pytest.mark.parametrize("n_out", [3, 16, 65], ids=["narrow", "square", "wide"])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_float64(always, n_out, bias):
    torch.manual_seed(0)
    x, weight, seen = torch.randn(4, 7, 16), torch.randn(n_out, 16), torch.randn(4, 7, n_out)
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [t.detach().to(dtype).requires_grad_() for t in (x, weight, torch.ones(n_out))]
        with products():
            y = F.linear(*leaves[: 2 + bias])
        (y * seen.to(dtype)).sum().backward()
        found.append([y, *(leaf.grad for leaf in leaves[: 2 + bias])])
    assert [found[i][0].grad_fn.name() == "_LinearBackward" for i in (0, 1)] == [True, False]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)


def test_inputs_that_lie_scattered_in_memory_are_read_right(always):
    torch.manual_seed(0)
    x, weight = torch.randn(16, 5, 4).permute(2, 1, 0), torch.randn(16, 9).t()
    plain = F.linear(x, weight)
    with products():
        torch.testing.assert_close(F.linear(x, weight), plain)


def test_it_serves_large_products_of_float32_on_a_cpu_alone(monkeypatch):
    monkeypatch.setattr(onednn, "FASTER_HERE", True)
    x, weight = torch.randn(256, 128, requires_grad=True), torch.randn(128, 128)

    def serves(x, weight) -> bool:
        return type(F.linear(x, weight).grad_fn).__name__ == "_LinearBackward"

    assert not serves(x, weight)
    with products():
        assert serves(x, weight)
        assert not serves(x[:8], weight)
        assert not serves(x.bfloat16(), weight.bfloat16())
        assert not serves(x[0].repeat(64), torch.randn(1024, 128 * 64))
        with torch.autocast("cpu", torch.bfloat16):
            assert not serves(x, weight)
    for other in (
        {"n": 32},
        {"dtype": torch.bfloat16},
        {"inputs": torch.zeros(8, 8, device="meta")},
    ):
        with products(**other):
            assert not serves(x, weight)
    monkeypatch.setattr(onednn, "FASTER_HERE", False)
    with products():
        assert not serves(x, weight)


@pytest.mark.parametrize("name", ["transformer", "gpt2", "llama-gqa", "gru", "mlp"])
def test_every_model_with_linear_layers_has_the_same_loss_and_gradient(name, always, monkeypatch):
    model, ids = small.build(name), small.batch()
    loss, found, calls, product = update.Loss(model, torch.float32), [], [], onednn.product
    monkeypatch.setattr(onednn, "product", lambda *args: calls.append(1) or product(*args))
    for here in (False, True):
        monkeypatch.setattr(onednn, "FASTER_HERE", here)
        assert not calls
        value = loss(ids[:, :-1], ids[:, 1:])
        found.append([value, *torch.autograd.grad(value, list(model.parameters()))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    n_linear = sum(isinstance(module, torch.nn.Linear) for module in model.modules())
    assert len(calls) >= 3 * n_linear  # forward, and backward to inputs and weights
