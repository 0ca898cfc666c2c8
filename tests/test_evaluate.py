"""Scoring a text with a model."""

import gc
import re

import numpy as np
import pytest
import torch

from lm import evaluate, scoring
from lm.corpora.named import named
from lm.data import pipeline
from lm.record.run import Run


def test_scoring_tokens_makes_no_more_logits_at_once_than_evaluation_does(cfg, tiny, monkeypatch):
    model = cfg(*tiny, "model=bigram").model.build(5)
    seen, plain = [], model.forward
    model.forward = lambda ids: seen.append(ids.numel()) or plain(ids)
    monkeypatch.setattr(scoring, "LOGITS", 5 * 3 * model.context_len)  # three windows
    nats = scoring.token_nats(model, np.arange(1000) % 5)
    assert nats.shape == (1, 999) and max(seen) == 3 * model.context_len


def test_the_memory_of_an_evaluation_does_not_grow_with_the_text(cfg, tiny, monkeypatch):
    """A small tensor of each pass was kept, where the next pass would have had its logits: 8
    million tokens took 4.5 GB, and a run on a text of 400 MB was killed for its memory."""
    model = cfg(*tiny, "model=bigram").model.build(5)
    monkeypatch.setattr(scoring, "TOKENS", model.context_len)  # one window in a pass
    alive = []

    def count(ids, _plain=model.forward):
        alive.append(sum(isinstance(there, torch.Tensor) for there in gc.get_objects()))
        return _plain(ids)

    model.forward = count
    gc.collect()
    ids = np.arange(40 * model.context_len + 1) % 5
    assert scoring.evaluate(model, ids, np.ones(5, np.int64))["tokens"] == len(ids) - 1
    assert len(alive) == 40 and alive[-1] < alive[2] + 10


def test_scores_of_a_text_of_many_passes_add_up(cfg, tiny, monkeypatch):
    """Also where the last block of sums is full, and where it has one pass."""
    model = cfg(*tiny, "model=bigram").model.build(5)
    monkeypatch.setattr(scoring, "TOKENS", model.context_len)
    monkeypatch.setattr(scoring, "BLOCK", 2)
    for n_passes in (1, 2, 3):
        ids = np.arange(n_passes * model.context_len + 1) ** 2 % 5
        nats = scoring.token_nats(model, ids)
        found = scoring.evaluate(model, ids, np.full(5, 3))
        assert nats.shape == (1, len(ids) - 1) and found["bytes"] == 3 * nats.size
        assert found["loss"] == pytest.approx(nats.mean(), rel=1e-12)


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


def test_a_file_is_scored_whole_and_in_parts_if_asked(trained, tmp_path, capsys):
    run = trained("model=bigram_counts")
    path = tmp_path / "other.txt"
    path.write_text("The dog said 7 plus 8. " * 100, encoding="utf-8")
    seen = {}
    for split in ("auto", "all", "train", "val"):
        evaluate.command(evaluate.EvaluateConfig(run=str(run), corpus=str(path), split=split))
        seen[split] = int(
            re.search(r"tokens, ([\d,]+) bytes,", capsys.readouterr().out)[1].replace(",", "")
        )
    assert seen == {"auto": 2299, "all": 2299, "train": 2069, "val": 229}  # the first is not scored
    evaluate.command(evaluate.EvaluateConfig(run=str(run)))
    assert " val: " in capsys.readouterr().out


def test_of_several_files_the_end_of_each_validates(cfg, tiny, tmp_path):
    """Once it was the end of the last: a file of another kind, such as the one README."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for letter in "abc":
        (folder / f"{letter}.md").write_text(letter * 100, encoding="utf-8")
    prepared = pipeline.prepare(cfg(*tiny, f"corpus.path={folder}"))
    kept = {}
    for split in ("train", "val"):
        ids = getattr(prepared, split)
        kept[split] = bytes(i for i in ids.tolist() if i < 256).decode()
        assert (ids == 256).sum() >= 2  # the texts are kept apart, as documents are
    assert kept == {"train": "a" * 90 + "b" * 90 + "c" * 90, "val": "a" * 10 + "b" * 10 + "c" * 10}


@pytest.mark.parametrize("text", ["", "a", "ab"])
def test_a_text_that_is_too_short_to_score_is_told_so(text, trained_once, tmp_path):
    """corpus.val_fraction was advised, which is no setting of this command."""
    run = trained_once("model=bigram_counts")
    path = tmp_path / "short.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"short|no text") as caught:
        evaluate.command(evaluate.EvaluateConfig(run=str(run), corpus=str(path)))
    assert "val_fraction" not in str(caught.value)
