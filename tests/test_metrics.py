"""Loss, perplexity and bits per byte against numbers worked out by hand."""

import math

import pytest
import torch

from lm import metrics


def test_nats_is_minus_log_probability_and_zero_where_ignored():
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    nats = metrics.nats(logits, torch.tensor([[1, metrics.IGNORE]]))
    assert nats.tolist() == [[pytest.approx(math.log(4)), 0.0]]


def test_the_loss_is_the_mean_over_the_targets_that_count():
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[1, 2, metrics.IGNORE], [0, 4, 3]])
    by_hand = metrics.nats(logits, targets).sum() / 5
    assert metrics.next_token_loss(logits, targets).item() == pytest.approx(by_hand.item())


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    assert metrics.perplexity(math.log(65)) == pytest.approx(65)
    assert metrics.perplexity(1e4) == math.inf


def test_bits_per_byte_of_a_uniform_guess_over_bytes_is_eight():
    assert metrics.bits_per_byte(100 * math.log(256), 100) == pytest.approx(8)


def test_bits_per_byte_of_no_bytes_is_refused():
    with pytest.raises(ValueError, match="only special tokens"):
        metrics.bits_per_byte(1.0, 0)
