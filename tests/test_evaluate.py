"""Scoring a text with a model."""

import numpy as np

from lm import evaluate


def test_scoring_tokens_makes_no_more_logits_at_once_than_evaluation_does(cfg, tiny, monkeypatch):
    model = cfg(*tiny, "model=bigram").model.build(5)
    seen, plain = [], model.forward
    model.forward = lambda ids: seen.append(ids.numel()) or plain(ids)
    monkeypatch.setattr(evaluate, "LOGITS", 5 * 3 * model.context_len)  # three windows
    nats = evaluate.token_nats(model, np.arange(1000) % 5)
    assert nats.shape == (1, 999) and max(seen) == 3 * model.context_len
