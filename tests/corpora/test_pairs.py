"""Pairs of a right and a wrong sentence: lm/corpora/pairs.py, and their score."""

import numpy as np
import pytest
import torch

from lm import config, scoring, train
from lm.corpora.grammar import english
from lm.corpora.pairs import PHENOMENA, pairs
from lm.models.base import LanguageModel
from lm.record.run import Run
from lm.report import records
from lm.tokenizers import ByteTokenizer
from tests.reference import derivations, tokens


@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_the_first_has_a_derivation_and_the_second_has_none(phenomenon):
    rules = english()
    made = pairs(phenomenon)
    assert len(made) == 1000 and len(set(made)) > 100
    for right, wrong in made[::20]:
        assert derivations(rules, tokens(right))[0] == 1, right
        assert derivations(rules, tokens(wrong))[0] == 0, wrong
        assert sum(a != b for a, b in zip(tokens(right), tokens(wrong), strict=True)) == 1
    assert pairs(phenomenon, 10) == pairs(phenomenon, 10)


class Table(LanguageModel):
    """Predicts each byte as likely as `weights` says, whatever stands before it."""

    def __init__(self, weights):
        super().__init__(config.BigramConfig(context_len=8), len(weights))
        self.register_buffer("logits", weights.log())

    def forward(self, ids):
        return self.logits.expand(*ids.shape, -1)


def test_a_document_costs_what_its_tokens_and_its_end_cost():
    weights = torch.rand(257) + 0.1
    nats = -(weights / weights.sum()).log().double().numpy()
    tokenizer = ByteTokenizer()
    texts = ["", "a", "longer than a window of eight bytes", "abc"]
    documents = [tokenizer.encode_to_numpy(text) for text in texts]
    found = scoring.document_nats(Table(weights), documents, tokenizer)
    expected = [nats[ids].sum() + nats[tokenizer.eot_id] for ids in documents]
    assert np.allclose(found, expected, rtol=1e-6)


def test_equal_scores_count_one_half():
    model = Table(torch.arange(1, 258).float())
    tokenizer = ByteTokenizer()
    assert scoring.pair_accuracy(model, tokenizer, [("b", "a"), ("a", "a")]) == 0.75
    assert scoring.pair_accuracy(model, tokenizer, [("ab", "ba"), ("a", "b")]) == 0.25


def test_a_run_logs_its_tasks_and_counts_of_the_grammar_pass_them(cfg, tmp_path):
    words = ("corpus=grammar", "corpus.n_documents=2000", "model=ngram", "model.context_len=32")
    made = cfg(*words, "track=off", "train.tasks=[agreement,brackets]", "train.sample_len=1")
    config.save(made, tmp_path / config.RESOLVED)
    train.train(made, tmp_path)
    run = Run.open(str(tmp_path))
    row = next(row for row in records.read(tmp_path).rows if "val/bpb" in row)
    assert row["task/agreement"] > 0.75  # the verb stands beside its noun: counts see both
    assert row["task/brackets"] < 0.65  # what was opened stands too far back
    model = run.model("last")
    expected = scoring.pair_accuracy(model, run.tokenizer, pairs("brackets"))
    assert row["task/brackets"] == pytest.approx(expected)
