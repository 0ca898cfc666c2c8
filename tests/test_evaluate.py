"""Scoring a text with a model."""

import gc
import math
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import lm
from lm import config, evaluate, scoring
from lm.config import GrammarConfig, HubConfig, PydocsConfig
from lm.corpora import overlap
from lm.corpora.base import TooShortError
from lm.data import pipeline
from lm.launch import presets
from lm.launch.named_corpus import named
from lm.record import ownership
from lm.record.run import Run
from lm.system.errors import ConfigError


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
    gc.freeze()  # what other tests have left is not looked through 40 times
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


FILES = config.FilesConfig(path="own.txt")
SHARDS = config.ShardsConfig(path="own")
TRAIN, VAL = np.arange(7), np.array([7, 8, 9])


class Model:
    """Stands in for a model, and knows where it came from and went to."""

    context_len = 16

    def __init__(self, checkpoint):
        self.asked = [checkpoint]

    def to(self, device):
        self.asked.append(device)
        return self


@pytest.fixture
def run_of(monkeypatch):
    """run_of(corpus): a run that was trained on it, and nothing behind it is computed."""

    def make(corpus):
        cfg = SimpleNamespace(corpus=corpus, model=SimpleNamespace(name="gru"))
        tokenizer = SimpleNamespace(token_lengths=lambda: "lengths")
        run = SimpleNamespace(path="runs/a", cfg=cfg, tokenizer=tokenizer, model=Model)
        monkeypatch.setattr(evaluate, "Run", SimpleNamespace(open={"runs/a": run}.get))
        monkeypatch.setattr(evaluate.devices, "choose", "on {}".format)
        return run

    return make


@pytest.mark.parametrize(
    ("own", "words", "name", "ids"),
    [
        (FILES, {}, "files val", VAL),
        (FILES, {"split": "train"}, "files train", TRAIN),
        (FILES, {"corpus": "*.md"}, "*.md all", [*TRAIN, *VAL]),
        (FILES, {"corpus": "*.md", "split": "val"}, "*.md val", VAL),
        (FILES, {"corpus": "names"}, "names val", VAL),
        (SHARDS, {}, "shards val", VAL),
        (SHARDS, {"split": "all"}, "shards all of the first part", [*TRAIN, *VAL]),
    ],
)
def test_a_score_is_told_with_its_text_and_units(
    own, words, name, ids, run_of, monkeypatch, capsys
):
    run, prepared, reads = run_of(own), SimpleNamespace(train=TRAIN, val=VAL), []

    def score(model, scored, lengths):
        assert (model.asked, lengths) == (["last", "on cpu"], "lengths")
        assert scored.tolist() == list(ids)
        return {"loss": 3 * math.log(2), "ppl": 8, "bpb": 1.5, "tokens": 1234, "bytes": 5678}

    def copied(of, text, scored):
        assert of is run and text is prepared
        return overlap.Copied(0.25, 12) if scored is VAL else None

    monkeypatch.setattr(evaluate.ownership, "check_reads", lambda *asked: reads.append(asked))
    monkeypatch.setattr(pipeline, "prepare_corpus", lambda text: text)
    monkeypatch.setattr(
        pipeline, "pack", lambda text, by: prepared if by is run.tokenizer else None
    )
    monkeypatch.setattr(evaluate, "evaluate", score)
    monkeypatch.setattr(evaluate, "copied_from_training", copied)
    settings = {"run": "runs/a", "checkpoint": "last", "device": "cpu", "trust": True}
    evaluate.command(evaluate.EvaluateConfig(**settings, **words))
    own_text = [("runs/a", run.cfg, True, [ownership.CORPUS])]
    assert reads == ([] if "corpus" in words else own_text)
    told = "copied      25.0% of all runs of 12 tokens in it stand in the training text, too\n"
    assert capsys.readouterr().out == (
        "run         runs/a  (gru, checkpoint last)\n"
        f"text        {name}: 1,234 tokens, 5,678 bytes, windows of 16\n"
        f"{told if ids is VAL else ''}"
        "loss        2.0794 nats a token (3.0000 bits)\n"
        "perplexity  8.000 a token\n"
        "bits/byte   1.5000\n"
    )


def test_a_text_of_the_run_s_own_that_is_too_short_is_told_as_it_is_in_training(
    run_of, monkeypatch
):
    def refuse(text):
        raise TooShortError(f"{text.name} is short")

    run_of(SHARDS)
    monkeypatch.setattr(evaluate.ownership, "check_reads", lambda *_: None)
    monkeypatch.setattr(pipeline, "prepare_corpus", refuse)
    with pytest.raises(TooShortError, match="shards is short"):
        evaluate.command(evaluate.EvaluateConfig(run="runs/a"))


def test_the_scores_of_tasks_are_told_with_their_errors(run_of, monkeypatch, capsys):
    run = run_of(FILES)

    def score(model, tokenizer, tasks, limit):
        assert (model.asked, tokenizer) == (["last", "on cpu"], run.tokenizer)
        assert (tasks, limit) == (["one", "two.yaml"], 5)
        one = SimpleNamespace(documents=1200, metrics={"acc": (0.5, 0.0123), "ppl": (9.0, None)})
        return {"one": one, "a_long_group": SimpleNamespace(documents=0, metrics={})}

    monkeypatch.setattr(
        lm, "harness", SimpleNamespace(evaluate=score, VERSION="0.4"), raising=False
    )
    settings = {"run": "runs/a", "checkpoint": "last", "device": "cpu"}
    evaluate.command(evaluate.EvaluateConfig(**settings, tasks="one,two.yaml,", limit=5))
    assert capsys.readouterr().out == (
        "run         runs/a  (gru, checkpoint last)\n"
        "harness     lm_eval 0.4, contexts of 16 tokens\n"
        "one           1,200 documents\n"
        "              acc 0.5000 +- 0.0123\n"
        "              ppl 9.0000\n"
        "a_long_group  a group\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"limit": 3}, "limit=3 is of tasks="),
        ({"tasks": "x", "split": "val"}, "leave out split=val"),
        ({"tasks": "x", "corpus": "names"}, "leave out corpus=names"),
        ({"tasks": "x"}, "tasks= needs lm_eval: pip install lm_eval"),
    ],
)
def test_tasks_stand_alone_and_need_the_harness(words, said, run_of, monkeypatch):
    run_of(FILES)
    monkeypatch.delitem(sys.modules, "lm.harness", raising=False)
    monkeypatch.delattr(lm, "harness", raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=said):
        evaluate.command(evaluate.EvaluateConfig(run="runs/a", **words))


def test_a_preset_of_the_user_s_own_is_a_corpus_that_one_word_names(tmp_path, monkeypatch):
    """`train.also=[tinystories]` was refused: dataclasses alone were asked for the name."""
    own = PydocsConfig()
    path = tmp_path / "conf/corpus/tinystories.yaml"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(presets, "folder", lambda name: tmp_path / name)

    def preset(schema, more=""):
        path.write_text(f"defaults: [{{/schema/corpus@_here_: {schema}}}, _self_]\n{more}")
        return named("tinystories", own, "train.also")

    assert preset("hub", "dataset: me/set") == HubConfig(dataset="me/set")
    assert named("grammar", own) == GrammarConfig()  # a class without a preset
    for schema, more, says in (
        ("hub", "datset: me/set", "unknown setting corpus.datset .did you mean corpus.dataset"),
        ("none", "", "corpus.name=None: choose pydocs"),
        ("shards", "path: a.txt", "train.also=tinystories is of several texts"),
    ):
        with pytest.raises(ValueError, match=says):
            preset(schema, more)
