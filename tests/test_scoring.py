"""Scores of a text against sums worked out by hand."""

import math

import numpy as np
import pytest
import torch

from lm import config, scoring
from lm.models.base import LanguageModel
from lm.tokenizers.byte import ByteTokenizer

V = 257  # bytes, and the end of a document
LENGTHS = np.array([1] * 256 + [0])


class Positional(LanguageModel):
    """Its predictions depend on the token before and on the place in the window, and on no other.

    In training they are wrong, as dropout would make them.
    """

    def __init__(self, context_len: int = 8):
        super().__init__(config.BigramConfig(context_len=context_len), V)
        weights = torch.Generator().manual_seed(0)
        self.register_buffer("table", torch.randn(V, V, generator=weights))

    def forward(self, ids):
        places = torch.arange(1, ids.shape[1] + 1)[:, None]
        return self.table[ids] / places + (torch.randn(V) if self.training else 0.0)


def by_hand(ids: np.ndarray, context_len: int = 8) -> np.ndarray:
    """-ln p of every token of ids (n,) but the first, in windows side by side: (n - 1,)."""
    table = Positional().table.double().numpy()
    places = 1 + np.arange(len(ids) - 1) % context_len
    logits = table[ids[:-1]] / places[:, None]
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids) - 1), ids[1:]]


TEXT = np.random.default_rng(0).integers(0, V, 1000)
TEXT[::50] = 256


@pytest.mark.parametrize("block", [scoring.BLOCK, 4])
def test_an_evaluation_means_over_tokens_and_over_the_bytes_of_the_text(block, monkeypatch):
    monkeypatch.setattr(scoring, "TOKENS", 47)  # 25 passes
    monkeypatch.setattr(scoring, "BLOCK", block)
    found = scoring.evaluate(Positional(), TEXT, LENGTHS)
    nats, is_text = by_hand(TEXT), TEXT[1:] != 256
    assert (found["tokens"], found["bytes"]) == (999, is_text.sum()) and is_text.sum() < 999
    assert found["loss"] == pytest.approx(nats.mean(), rel=1e-6)
    assert found["ppl"] == pytest.approx(math.exp(nats.mean()), rel=1e-5)
    bits = nats[is_text].sum() / math.log(2)
    assert found["bpb"] == pytest.approx(bits / is_text.sum(), rel=1e-6)


def test_a_text_of_two_tokens_has_the_score_of_its_second():
    found = scoring.evaluate(Positional(), TEXT[1:3], LENGTHS)
    assert found["loss"] == pytest.approx(by_hand(TEXT[1:3])[0], rel=1e-6)


def test_bits_per_byte_counts_the_bytes_of_tokens_that_have_several():
    lengths = np.arange(V) % 5
    found = scoring.evaluate(Positional(), TEXT, lengths)
    assert found["bytes"] == lengths[TEXT[1:]].sum()
    bits = by_hand(TEXT)[lengths[TEXT[1:]] > 0].sum() / math.log(2)
    assert found["bpb"] == pytest.approx(bits / found["bytes"], rel=1e-6)


def test_the_bytes_of_a_long_text_are_counted_to_the_last():
    """float32 does not tell one byte of a hundred million."""
    found = scoring.evaluate(Positional(), TEXT, np.full(V, 2**24 + 1))
    assert found["bytes"] == 999 * (2**24 + 1)


def test_a_run_in_bfloat16_is_evaluated_in_bfloat16():
    torch.manual_seed(0)
    model = config.MLPConfig(context_len=8).build(V)
    exact, rounded = (
        scoring.evaluate(model, TEXT, LENGTHS, dtype)["loss"]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rounded == pytest.approx(exact, rel=1e-2) and rounded != exact
    assert exact == scoring.evaluate(model, TEXT, LENGTHS)["loss"]


@pytest.mark.parametrize("training", [True, False])
def test_scoring_is_without_dropout_and_leaves_the_model_as_it_was(training):
    model = Positional().train(training)
    first = scoring.evaluate(model, TEXT, LENGTHS)
    assert first == scoring.evaluate(model, TEXT, LENGTHS) and model.training == training
    documents = [TEXT[:20], TEXT[20:22]]
    first = scoring.document_nats(model, documents, ByteTokenizer())
    assert (first == scoring.document_nats(model, documents, ByteTokenizer())).all()
    assert model.training == training


@pytest.mark.parametrize("tokens", [scoring.TOKENS, 47])  # in one pass, or in 25
def test_each_token_but_the_first_has_its_own_score(tokens, monkeypatch):
    monkeypatch.setattr(scoring, "TOKENS", tokens)
    found = scoring.token_nats(Positional().eval(), TEXT)
    assert found.shape == (1, 999) and found.dtype == np.float64
    assert found[0] == pytest.approx(by_hand(TEXT), rel=1e-4)


def test_windows_that_overlap_score_with_more_to_look_back_at():
    """Every 2 tokens: the first window scores all, each further one its last two."""
    found = scoring.token_nats(Positional().eval(), TEXT[:13], stride=2)[0]
    late = [by_hand(TEXT[i : i + 9])[-2:] for i in (2, 4)]
    assert found[:8] == pytest.approx(by_hand(TEXT[:9]), rel=1e-4)
    assert found[8:] == pytest.approx(np.concatenate(late), rel=1e-4)


def test_at_a_temperature_the_logits_are_divided_by_it():
    model = Positional().eval()
    found = scoring.token_nats(model, TEXT, temperatures=(1.0, 2.0))
    assert found[0] == pytest.approx(by_hand(TEXT), rel=1e-4)
    (alone,) = scoring.token_nats(model, TEXT, temperatures=(2.0,))
    model.table /= 2
    for scores in (found[1], alone):
        assert scores == pytest.approx(scoring.token_nats(model, TEXT)[0], rel=1e-4)


def test_a_single_token_has_nothing_before_it_to_be_predicted_from():
    found = scoring.token_nats(Positional(), TEXT[:1], temperatures=(1.0, 2.0))
    assert found.shape == (2, 0)


def test_a_document_begins_after_an_end_and_again_at_every_window():
    eot = ByteTokenizer().eot_id
    documents = [TEXT[1:30], TEXT[60:60], TEXT[101:109], TEXT[120:123]]
    found = scoring.document_nats(Positional(), documents, ByteTokenizer())
    expected = [by_hand(np.array([eot, *document, eot])).sum() for document in documents]
    assert found == pytest.approx(np.array(expected), rel=1e-5)


def passes(model: LanguageModel, score) -> list[int]:
    """The numbers of tokens that go through the model at a time."""
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numel()))
    score(model)
    return seen


SCORES = {
    "evaluate": lambda model: scoring.evaluate(model, TEXT, LENGTHS),
    "token_nats": lambda model: scoring.token_nats(model, TEXT),
    "document_nats": lambda model: scoring.document_nats(model, [TEXT[1:8]] * 125, ByteTokenizer()),
}


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_what_goes_through_the_model_at_a_time_is_bounded_in_tokens_and_in_logits(
    score, monkeypatch
):
    monkeypatch.setattr(scoring, "TOKENS", 47)  # five windows of 8
    assert set(passes(Positional(), score)) == {40}
    monkeypatch.setattr(scoring, "LOGITS", 31 * V)  # three, and two at the end
    assert set(passes(Positional(), score)) == {24, 16}
    monkeypatch.setattr(scoring, "LOGITS", 1)
    assert set(passes(Positional(), score)) == {8}


def test_a_model_that_makes_no_logits_to_score_is_bounded_in_tokens_alone(monkeypatch):
    monkeypatch.setattr(scoring, "TOKENS", 40)
    monkeypatch.setattr(scoring, "LOGITS", 8 * V)
    model = Positional()
    model.scores_alone = True
    assert set(passes(model, SCORES["evaluate"])) == {40}
