"""Scoring a text with a model."""

import numpy as np

from lm import evaluate, pipeline
from lm.corpora.named import named
from lm.record.run import Run


def test_scoring_tokens_makes_no_more_logits_at_once_than_evaluation_does(cfg, tiny, monkeypatch):
    model = cfg(*tiny, "model=bigram").model.build(5)
    seen, plain = [], model.forward
    model.forward = lambda ids: seen.append(ids.numel()) or plain(ids)
    monkeypatch.setattr(evaluate, "LOGITS", 5 * 3 * model.context_len)  # three windows
    nats = evaluate.token_nats(model, np.arange(1000) % 5)
    assert nats.shape == (1, 999) and max(seen) == 3 * model.context_len


def test_a_text_is_compared_with_what_the_run_was_trained_on(trained, tiny, toy_text, tmp_path):
    run = Run.open(str(trained("model=bigram_counts")))

    def copied(text, split):
        path = tmp_path / "other.txt"
        path.write_text(text, encoding="utf-8")
        corpus = pipeline.prepare_corpus(named(str(path), run.cfg.corpus))
        prepared = pipeline.pack(corpus, run.tokenizer)
        ids = prepared.val if split == "val" else prepared.train
        found = evaluate.copied_from_training(run, prepared, ids)
        return found and found.share

    text = toy_text.read_text(encoding="utf-8")
    assert copied(text[:3000], "train") == copied(text[:3000], "val") == 1.0
    mirrored = text[3000:0:-1]
    assert copied(mirrored, "train") < 0.05
    assert 0.4 < copied(mirrored + text[:3000], "train") < 0.6
    assert copied(text, "train") is None  # that is the training text itself
