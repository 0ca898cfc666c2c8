"""How much of a text stands in another: lm/corpora/overlap.py."""

import math
import time
import tracemalloc

import numpy as np
import pytest

from lm.corpora import overlap
from tests.helpers import timed


def slow_share(train, judged, span):
    known = {train[i : i + span].tobytes() for i in range(len(train) - span + 1)}
    starts = range(len(judged) - span + 1)
    return sum(judged[i : i + span].tobytes() in known for i in starts) / len(starts)


@pytest.mark.parametrize("planted", [0.0, 0.02, 0.135, 1.0])
@pytest.mark.parametrize("vocab_size", [256, 70_000])
def test_a_planted_share_is_found(planted, vocab_size):
    rng = np.random.default_rng(0)
    dtype = np.uint16 if vocab_size < 1 << 16 else np.uint32
    train = rng.integers(vocab_size, size=30_000).astype(dtype)
    judged = rng.integers(vocab_size, size=10_000).astype(dtype)
    n = int(planted * len(judged))
    judged[:n] = train[500 : 500 + n]
    share = overlap.share_copied(train, judged, 12)
    assert share == slow_share(train, judged, 12)
    assert abs(share - planted) <= 12 / 10_000


def test_the_training_text_is_read_in_chunks_without_a_gap(monkeypatch):
    rng = np.random.default_rng(0)
    train = rng.integers(50, size=1000).astype(np.uint16)
    for chunk in (1, 7, 100):
        monkeypatch.setattr(overlap, "CHUNK", chunk)
        assert overlap.share_copied(train, train, 12) == 1.0


def test_of_a_long_text_an_even_sample_is_looked_up(monkeypatch):
    rng = np.random.default_rng(0)
    train = rng.integers(500, size=20_000).astype(np.uint16)
    judged = np.concatenate([train[:5000], rng.integers(500, size=15_000).astype(np.uint16)])
    monkeypatch.setattr(overlap, "MAX_SPANS", 2000)
    assert abs(overlap.share_copied(train, judged, 12) - 0.25) < 0.001


def test_texts_shorter_than_a_span():
    short = np.arange(5, dtype=np.uint16)
    long = np.arange(50, dtype=np.uint16)
    assert math.isnan(overlap.share_copied(long, short, 12))
    assert overlap.share_copied(short, long, 12) == 0.0


def test_a_span_has_twelve_tokens_and_thirty_bytes():
    assert overlap.span_length(2.6) == 12
    assert overlap.span_length(1.0) == 30
    assert overlap.span_length(50.0) == 12


def test_memory_grows_with_neither_text(monkeypatch):
    """Of 400 MB in one line the hashes of the validation text took 1.5 GB."""
    monkeypatch.setattr(overlap, "MAX_SPANS", 1000)
    monkeypatch.setattr(overlap, "CHUNK", 100_000)
    text = np.zeros(6_000_000, np.uint16)
    tracemalloc.start()
    assert overlap.share_copied(text[:1000], text, 12) == 1.0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 90_000_000  # of which 67 for a first look


@timed
def test_a_long_span_costs_no_more_than_a_short_one():
    """Tokens of a byte have spans of 30: a text of 400 MB was compared for three minutes."""
    text = np.random.default_rng(0).integers(256, size=500_000).astype(np.uint16)

    def seconds(span: int) -> float:
        start = time.process_time()
        overlap.share_copied(text, text[:1000], span)
        return time.process_time() - start

    seconds(100)
    assert min(seconds(100) for _ in range(3)) < 2 * min(seconds(2) for _ in range(3)) + 0.05
