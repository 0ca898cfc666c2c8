"""Mixtures of runs: their weights, the numbers printed, what is refused."""

import dataclasses
import re

import numpy as np
import pytest

from lm import config, mix, train
from lm.data import pipeline
from lm.mix import MixConfig


def test_the_weights_are_those_that_drew_the_tokens():
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(5), size=(2, 4000))  # two models' probabilities of five tokens
    source = random.random(4000) < 0.3  # which of them drew
    drawn = [random.choice(5, p=p[int(not s), i]) for i, s in enumerate(source)]
    nats = -np.log(p[:, np.arange(4000), drawn])
    w = mix.weights(nats)
    assert w.sum() == pytest.approx(1)
    assert w[0] == pytest.approx(0.3, abs=0.06)
    losses = [mix.mixed(nats, np.array([x, 1 - x])).mean() for x in (w[0] - 0.05, w[0] + 0.05)]
    assert mix.mixed(nats, w).mean() < min(losses)  # it is the best there is


@pytest.fixture
def runs(cfg, tiny, tmp_path):
    """runs("model=bigram", ...): directories of finished runs, joined by commas."""

    def make(*words: str) -> str:
        for i, word in enumerate(words):
            made, out = cfg(*tiny, *word.split()), tmp_path / f"r{i}"
            out.mkdir()
            config.save(made, out / config.RESOLVED)
            train.train(made, out)
        return ",".join(f"r{i}" for i in range(len(words)))

    return make


def test_a_mixture_is_no_worse_than_its_parts_where_its_weights_were_chosen(runs, capsys):
    names = runs("model=bigram_counts", "model=ngram")
    mix.command(MixConfig(runs=names, stride=4))
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if re.match(r" +\d", line)]
    first = [float(row[-4]) for row in rows]  # each at temperature 1, and at its own
    assert len(first) == 5 and first[4] <= min(first[:4]) + 1e-4
    assert first[1] <= first[0] and first[3] <= first[2]


@pytest.mark.parametrize("n", [1, 2])
def test_a_text_of_two_tokens_is_too_short_to_mix_on(runs, monkeypatch, n):
    """Weights were chosen on no token at all: an IndexError."""
    names = runs("model=bigram_counts", "model=ngram")
    prepare = pipeline.prepare

    def short(cfg):
        prepared = prepare(cfg)
        return dataclasses.replace(prepared, val=prepared.val[:n])

    monkeypatch.setattr(pipeline, "prepare", short)
    with pytest.raises(ValueError, match=f"the validation text has {n} tokens, and each half"):
        mix.command(MixConfig(runs=names))


def test_what_one_model_holds_for_all_but_impossible_is_no_trap():
    """Beyond 745 nats the probability is 0 in 64 bits, and 0 of 0 was no number."""
    nats = np.array([[800.0, 1.0, 900.0], [802.0, 3.0, 1000.0]])
    w = mix.weights(nats)
    assert w.sum() == pytest.approx(1) and w[0] > 0.99
    np.testing.assert_allclose(mix.mixed(nats, np.array([0.5, 0.5])) - nats[0], np.log(2), atol=0.2)
    assert np.isfinite(mix.mixed(nats, w)).all()


def test_runs_with_other_tokenizers_are_refused(runs):
    names = runs("model=bigram_counts", "model=bigram_counts corpus.val_fraction=0.2 tokenizer=bpe")
    with pytest.raises(ValueError, match="the runs have different tokenizers"):
        mix.command(MixConfig(runs=names))
