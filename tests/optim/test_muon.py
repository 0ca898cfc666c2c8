"""Muon against torch.optim.Muon and against singular values."""

import pytest
import torch

from lm.optim.muon import Muon, orthogonalize
from tests import reference

SHAPES = [(24, 24), (24, 60), (60, 24), (24, 24)]


def make(seed: int = 0) -> list[torch.nn.Parameter]:
    torch.manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def test_orthogonalize_equals_the_polynomial_on_the_singular_values():
    m = torch.randn(3, 20, 33)
    for shape in (m, m.mT, m[0]):
        expected = reference.newton_schulz(shape)
        torch.testing.assert_close(orthogonalize(shape).double(), expected, atol=1e-4, rtol=0)


def test_orthogonalize_moves_singular_values_near_1_and_leaves_its_input():
    m = torch.randn(32, 64)
    before = m.clone()
    s = torch.linalg.svdvals(orthogonalize(m))
    assert s.min() > 0.5 and s.max() < 1.3
    assert torch.equal(m, before)


@pytest.mark.parametrize("size", [1e-5, 1e-3, 1e3])
def test_the_length_of_a_gradient_does_not_matter(size):
    m = torch.randn(16, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonalize(m * size), orthogonalize(m), atol=1e-3, rtol=0)


def test_orthogonalize_of_zeros_is_zeros():
    assert torch.equal(orthogonalize(torch.zeros(4, 6)), torch.zeros(4, 6))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs PyTorch 2.9 to compare with")
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_equals_torchs(weight_decay):
    """torch's rounds to bfloat16 inside, ours does not: the updates agree to about 1 %."""
    ours, theirs = make(), make()
    a = Muon([{"params": ours, "parts": None}], lr=0.02, momentum=0.95, weight_decay=weight_decay)
    b = torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=weight_decay)
    start = [p.detach().clone() for p in ours]
    for step in range(4):
        torch.manual_seed(step)
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q, old in zip(ours, theirs, start, strict=True):
        assert (p - q).norm() < 0.02 * (p - old).norm()


def test_gradients_are_left_as_they_were():
    params = make()
    optimizer = Muon([{"params": params, "parts": None}], lr=0.02, momentum=0.9, weight_decay=0.1)
    for p in params:
        p.grad = torch.randn_like(p)
    before = [p.grad.clone() for p in params]
    optimizer.step()
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))


@pytest.mark.parametrize("parts", [(24, 24, 24), (36, 36), (40, 16, 16)])
def test_a_stack_of_matrices_moves_as_its_parts_would(parts):
    torch.manual_seed(0)
    stack = torch.nn.Parameter(torch.randn(72, 24))
    pieces = [torch.nn.Parameter(piece.clone()) for piece in stack.detach().split(parts)]
    stack.grad = torch.randn_like(stack)
    for piece, grad in zip(pieces, stack.grad.split(parts), strict=True):
        piece.grad = grad.clone()
    how = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    Muon([{"params": [stack], "parts": parts}], **how).step()
    Muon([{"params": pieces, "parts": None}], **how).step()
    torch.testing.assert_close(stack.detach(), torch.cat([p.detach() for p in pieces]))


def test_a_parameter_without_a_gradient_stays():
    params = make()
    optimizer = Muon([{"params": params, "parts": None}], lr=0.1, momentum=0.9, weight_decay=0.1)
    params[0].grad = torch.randn_like(params[0])
    before = params[1].detach().clone()
    optimizer.step()
    assert torch.equal(params[1], before)


def test_a_group_without_gradients_does_not_hold_up_the_next():
    idle, busy = make(), make(1)
    groups = [{"params": idle, "parts": None}, {"params": busy, "parts": None}]
    optimizer = Muon(groups, lr=0.1, momentum=0.9, weight_decay=0.0)
    before = [p.detach().clone() for p in busy]
    for p in busy:
        p.grad = torch.randn_like(p)
    optimizer.step()
    assert not any(torch.equal(p, old) for p, old in zip(busy, before, strict=True))


def test_in_bfloat16_the_update_is_the_rounded_one_of_float32():
    steps = []
    for dtype in (torch.float32, torch.bfloat16):
        (p, *_) = make()
        before = p.detach().clone()
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(3))
        groups = [{"params": [p], "parts": None}]
        Muon(groups, lr=0.1, momentum=0.9, weight_decay=0.0, dtype=dtype).step()
        steps.append(p.detach() - before)
    error = (steps[1] - steps[0]).norm() / steps[0].norm()
    assert 1e-4 < error < 0.05


def test_state_restored_from_its_dict_continues_bit_for_bit():
    def run(params, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            for p in params:
                p.grad = torch.randn_like(p)
            optimizer.step()

    def new(params):
        return Muon([{"params": params, "parts": None}], lr=0.02, momentum=0.9, weight_decay=0.0)

    whole = make()
    run(whole, new(whole), range(6))
    half = make()
    first = new(half)
    run(half, first, range(3))
    second = new(half)
    second.load_state_dict(first.state_dict())
    run(half, second, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, half, strict=True))
