"""Gradients are shortened to a norm in one way everywhere."""

import pytest
import torch

from lm.optim.clip import clip_gradients
from tests.helpers import ROOT


@pytest.mark.parametrize(("limit", "factor"), [(2.5, 0.5), (5.1, 1.0), (0.0, 1.0)])
def test_two_gradients_are_shortened_together_and_the_norm_is_that_before(limit, factor):
    """(3, 0) and (4,) are 5 long together; a limit of 0 switches it off."""
    parameters = [torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
    parameters[0].grad = torch.tensor([3.0, 0.0])
    parameters[1].grad = torch.tensor([4.0])
    assert clip_gradients(iter(parameters), limit).item() == 5.0
    torch.testing.assert_close(parameters[0].grad, torch.tensor([3.0 * factor, 0.0]))
    torch.testing.assert_close(parameters[1].grad, torch.tensor([4.0 * factor]))


def test_no_other_file_of_lm_clips():
    files = [
        path for path in (ROOT / "lm").rglob("*.py") if "clip_grad_" in path.read_text("utf-8")
    ]
    assert [path.name for path in files] == ["clip.py"]
