"""Counted models against dictionaries, and the losses everybody quotes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lm import config, metrics, scoring
from lm.config import AdamWConfig, BigramConfig, BigramCountsConfig, NgramConfig
from tests import reference
from tests.helpers import DATA, needs_data

V = 7


def text(n: int = 400, vocab_size: int = V) -> np.ndarray:
    """Skewed tokens, so that counts of 1, 2, 3 and more all occur."""
    rng = np.random.default_rng(1)
    return np.minimum(rng.geometric(0.35, n) - 1, vocab_size - 1).astype(np.uint16)


def ngram(ids: np.ndarray, order: int, vocab_size: int = V):
    model = NgramConfig(order=order).build(vocab_size)
    model.fit(ids)
    return model


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [3, 30, 400])
def test_probabilities_equal_those_of_dictionaries(order, n):
    ids = text(n)
    oracle = reference.KneserNey(ids.tolist(), order, V)
    seen, unseen = ids[: min(n, 12)].tolist(), [6, 6, 5, 6, 4, 6, 6]
    for window in (seen, unseen):
        probs = ngram(ids, order)(torch.tensor([window]))[0].exp()  # (T, V)
        for t in range(len(window)):
            expected = [oracle.prob(tuple(window[: t + 1]), w) for w in range(V)]
            torch.testing.assert_close(probs[t], torch.tensor(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_probabilities_sum_to_1_after_contexts_seen_and_never_seen(order):
    ids = text()[text() != 3]  # token 3 is in no context
    windows = torch.tensor([ids[:8].tolist(), [3] * 8, [0, 3, 0, 1, 3, 3, 1, 0]])
    probs = ngram(ids, order)(windows).double().exp()  # (B, T, V)
    torch.testing.assert_close(probs.sum(-1), torch.ones(3, 8).double(), atol=1e-5, rtol=0)
    assert (probs > 0).all()


@pytest.mark.parametrize("order", [1, 2, 5])
def test_the_loss_of_targets_alone_is_that_of_the_whole_distribution(order):
    ids = text()[text() != 3]
    model = ngram(ids, order)
    windows = torch.tensor([ids[:9].tolist(), [3] * 9, [0, 3, 0, 1, 3, 3, 1, 0, 3]])
    x, y = windows[:, :-1], windows[:, 1:].clone()
    y[0, -2:] = metrics.IGNORE
    torch.testing.assert_close(model.nats(x, y), metrics.nats(model(x), y), atol=1e-5, rtol=1e-5)
    x, y = torch.cartesian_prod(torch.arange(V), torch.arange(V)).T[:, :, None]  # all pairs
    torch.testing.assert_close(model.nats(x, y), metrics.nats(model(x), y), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_the_loss_of_targets_is_that_of_the_distribution_where_the_text_is_shorter_than_the_order(
    n,
):
    model = ngram(np.arange(n), 5)
    x, y = torch.tensor([[0, 1, 2, 0, 5]]), torch.tensor([[1, 2, 0, 0, 6]])
    torch.testing.assert_close(model.nats(x, y), metrics.nats(model(x), y), atol=1e-6, rtol=1e-6)


def test_the_tables_of_a_text_are_those_made_by_hand():
    model = ngram(np.array([0, 1, 0, 1, 2], np.uint16), 2, vocab_size=3)
    single, pairs = model.table(1), model.table(2)
    assert single.keys.tolist() == [0, 1, 2]
    assert pairs.keys.tolist() == [1, 3, 5]  # 0 1, 1 0 and 1 2: the row of the first times 3
    # Before 0 stand 1 and the start, before 1 and 2 one token each.
    assert model.counts_1.tolist() == [2, 1, 1] and model.counts_2.tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    ("counts", "discounts"),
    [
        # y = 4 / (4 + 2 * 2) = 1/2: 1 - 2y 2/4, 2 - 3y 1/2, 3 - 4y 1/1
        ([1, 1, 1, 1, 2, 2, 3, 4, 9], (0.5, 1.25, 1.0)),
        # Without a count of 2 y is 1: 1 - 0 is no discount of 1; 3 - 4 * 1/4
        ([1, 3, 3, 3, 3, 4], (0.5, 1.0, 2.0)),
        # Without a count of 1 y is 0, so that nothing is left of the formula.
        ([2, 2, 2, 2, 2, 2, 3], (0.5, 1.0, 1.5)),
        # Without a count of 3 larger ones lose half of 3.
        ([1, 1, 1, 1, 2, 5], (1 - 2 * (4 / 6) / 4, 1.0, 1.5)),
        ([], (0.5, 1.0, 1.5)),
    ],
)
def test_discounts_follow_from_how_many_sequences_occur_once_twice_and_so_on(counts, discounts):
    """By equation 26 of Chen and Goodman, or half of the count where it gives none."""
    model = NgramConfig(order=1).build(V)
    model.counts_1 = torch.tensor(counts)
    assert model.discounts(1).tolist() == pytest.approx(discounts)


def test_a_saved_single_token_that_is_not_in_the_vocabulary_is_refused():
    tables = ngram(text(), 2).state_dict()
    tables["keys_1"][-1] = V
    with pytest.raises(ValueError, match="keys of order 1 are not in order or have no context"):
        NgramConfig(order=2).build(V).load_state_dict(tables)


@pytest.mark.parametrize("add_k", [0.01, 1.0])
def test_bigram_counts_score_targets_alone_as_the_whole_distribution_does(add_k):
    ids = text()[text() != 3]
    model = BigramCountsConfig(add_k=add_k).build(V)
    model.fit(ids)
    x = torch.tensor([ids[:8].tolist(), [3] * 8, [0, 3, 0, 1, 3, 3, 1, 0]])
    y = torch.tensor([ids[1:9].tolist(), [0] * 8, [3, 0, 1, 3, 3, 1, 0, metrics.IGNORE]])
    torch.testing.assert_close(model.nats(x, y), metrics.nats(model(x), y), atol=1e-6, rtol=1e-6)
    x, y = torch.cartesian_prod(torch.arange(V), torch.arange(V)).T[:, None]  # all pairs
    torch.testing.assert_close(model.nats(x, y), metrics.nats(model(x), y), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
def test_counts_are_evaluated_without_a_distribution_over_a_large_vocabulary(name, monkeypatch):
    size = 1 << 16
    ids = np.random.default_rng(0).integers(size, size=20_000)
    model = config.options("model")[name](context_len=128).build(size)
    model.fit(ids)
    # All 20,000 distributions are 5 GB: whoever makes one of them fails here.
    monkeypatch.setattr(model, "forward", None)
    lengths = np.ones(size, np.int64)
    score = scoring.evaluate(model, ids[:5000], lengths)
    assert score["tokens"] == 4999 and 0 < score["bpb"] < 16
    nats = scoring.token_nats(model, ids[:5000])
    assert nats.sum() / 4999 == pytest.approx(score["loss"])


def test_a_position_depends_on_order_minus_1_tokens():
    model = ngram(text(), 3)
    a = model(torch.tensor([[0, 1, 2, 1]]))[0, -1]
    b = model(torch.tensor([[5, 4, 2, 1]]))[0, -1]
    assert torch.equal(a, b)
    assert not torch.equal(a, model(torch.tensor([[0, 1, 0, 1]]))[0, -1])


def test_a_token_never_seen_keeps_some_probability():
    model = ngram(np.array([0, 1] * 200, np.uint16), 3)
    probs = model(torch.tensor([[0, 1, 0]]))[0, -1].exp()
    assert probs[1] > 0.9 and (probs > 0).all()


def test_orders_whose_packed_keys_would_not_fit_64_bits_work():
    ids = np.random.default_rng(0).integers(0, 50_257, 2000).astype(np.uint16)
    ids = np.concatenate((ids, ids))  # 50,257 ** 8 is far above 2 ** 64
    model = ngram(ids, 8, 50_257)
    window = torch.from_numpy(ids[:20].astype(np.int64))[None]
    best = model(window)[0].argmax(-1)
    assert torch.equal(best[7:-1], window[0, 8:])


@pytest.mark.parametrize("add_k", [1.0, 0.1])
def test_bigram_counts_equal_those_of_dictionaries(add_k):
    ids = text()
    model = BigramCountsConfig(add_k=add_k).build(V)
    model.fit(ids)
    probs = model(torch.arange(V)[None])[0].exp()
    for last in range(V):
        expected = reference.bigram_probs(ids.tolist(), V, add_k, last)
        torch.testing.assert_close(probs[last], torch.tensor(expected), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("vocab_size", [V, 60_000, 100_000])
def test_chunks_of_a_long_text_count_the_same(vocab_size, monkeypatch):
    """Also vocabularies whose pairs need 64 bits."""
    dtype = np.uint16 if vocab_size < 2**16 else np.uint32
    ids = (text().astype(np.int64) * (vocab_size // V)).astype(dtype)
    wide = ids.astype(np.int64)
    pairs, counts = np.unique(wide[:-1] * vocab_size + wide[1:], return_counts=True)
    for chunk in (1 << 24, 37, 398):  # one, many, and one pair that is left
        monkeypatch.setattr("lm.models.bigram_counts.CHUNK", chunk)
        model = BigramCountsConfig().build(vocab_size)
        model.fit(ids)
        assert np.array_equal(model.pairs, pairs) and np.array_equal(model.counts, counts)


def nats(model, ids: np.ndarray, window: int) -> float:
    """Nats per predicted token over windows that overlap by one."""
    total, n = 0.0, 0
    for start in range(0, len(ids) - 1, window * 64):
        x = torch.from_numpy(ids[start : start + window * 64 + 1].astype(np.int64))
        rows = (len(x) - 1) // window * window
        for a, b in ((x[:rows].view(-1, window), x[1 : rows + 1].view(-1, window)),
                     (x[rows:-1][None], x[rows + 1 :][None])):  # fmt: skip
            if a.numel():
                loss = F.cross_entropy(model(a).flatten(0, 1), b.flatten(), reduction="sum")
                total, n = total + loss.item(), n + a.numel()
    assert n == len(ids) - 1
    return total / n


@pytest.fixture(scope="module")
def shakespeare() -> tuple[np.ndarray, np.ndarray, int]:
    characters = Path(DATA, "shakespeare.txt").read_text()
    chars = sorted(set(characters))
    ids = np.array([chars.index(c) for c in characters], np.uint16)
    cut = int(0.9 * len(ids))
    return ids[:cut], ids[cut:], len(chars)


@needs_data
def test_shakespeare_unigrams_reach_3_347_nats(shakespeare):
    train, val, vocab_size = shakespeare
    assert nats(ngram(train, 1, vocab_size), val, 256) == pytest.approx(3.347, abs=5e-4)


@needs_data
def test_shakespeare_add_1_bigrams_reach_2_482_nats(shakespeare):
    train, val, vocab_size = shakespeare
    model = BigramCountsConfig(add_k=1.0).build(vocab_size)
    model.fit(train)
    assert nats(model, val, 256) == pytest.approx(2.482, abs=5e-4)


@needs_data
@pytest.mark.parametrize(("order", "expected"), [(4, 1.720), (5, 1.562)])
def test_shakespeare_ngrams_reach_what_they_did(shakespeare, order, expected):
    train, val, vocab_size = shakespeare
    assert nats(ngram(train, order, vocab_size), val, 4096) == pytest.approx(expected, abs=1e-3)


@pytest.fixture(scope="module")
def names() -> np.ndarray:
    """.emma.olivia. and so on: a dot at both ends of each name, shared by neighbours."""
    characters = "." + ".".join(Path(DATA, "names.txt").read_text().split()) + "."
    chars = sorted(set(characters))
    return np.array([chars.index(c) for c in characters], np.uint16)


@needs_data
def test_names_bigrams_reach_2_4546_nats(names):
    assert len(names) - 1 == 228_146
    model = BigramCountsConfig().build(27)
    model.fit(names)
    assert nats(model, names, 512) == pytest.approx(2.4546, abs=1e-4)


@needs_data
def test_the_neural_bigram_approaches_the_counted_one(names):
    """Both are one table: gradients lead to the logarithm of the counts."""
    ids = torch.from_numpy(names.astype(np.int64))
    model = BigramConfig().build(27)
    (optimizer,) = AdamWConfig(lr=0.1).build(model)
    for step in range(200):
        x, y = ids[:-1][step % 16 :: 16], ids[1:][step % 16 :: 16]
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.step()
    with torch.no_grad():
        assert F.cross_entropy(model(ids[:-1]), ids[1:]).item() == pytest.approx(2.4546, abs=3e-3)
