"""What the page says of settings and tokenizers is so."""

import json
import time
import types
from pathlib import Path

import numpy as np
import pytest

from lm.report import board, folding, records, thinning
from tests.helpers import timed


def test_perplexities_of_different_tokenizers_are_not_shown_and_the_reason_is(fake_run):
    fake_run("outputs/runs/d/a", "model=gru", tokenizer="t1")
    fake_run("outputs/runs/d/b", "model=mlp", tokenizer="t2")
    rankings = folding.rank(folding.fold_seeds(records.find([Path("outputs")])))
    (corpus,) = board.view(rankings, counts=False)["corpora"]
    assert corpus["ppl"] is False and "2 different ways" in corpus["note"]
    assert "Bits per byte" in corpus["note"]


def test_perplexity_is_that_of_the_checkpoint_that_has_the_score(fake_run):
    """Beside the best bits per byte stood the perplexity at the end of the run."""
    best_first = fake_run("outputs/runs/d/a", "seed=1", scores=(8.0, 2.0, 3.0))
    fake_run("outputs/runs/d/b", "seed=2", scores=(8.0, 3.0, 2.0), summary={"val/ppl": 6.0})
    rows = [json.loads(line) for line in (best_first / "metrics.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(row | {"val/ppl": 2 * row["val/bpb"]}) + "\n" for row in rows)
    (best_first / "metrics.jsonl").write_text(text)
    runs = records.find([Path("outputs")])
    assert [run.perplexity for run in runs] == [4.0, 6.0]
    (corpus,) = board.view(folding.rank(folding.fold_seeds(runs)), counts=False)["corpora"]
    assert [arm["ppl"] for arm in corpus["arms"]] == [5.0]


def test_a_setting_that_decides_the_score_explains_it_and_noise_does_not():
    random = np.random.default_rng(0)
    lr = [float(v) for v in random.choice([0.1, 0.2, 0.3], size=90)]
    noise = [float(v) for v in random.random(90)]
    scores = [v * 10 + 0.1 * random.normal() for v in lr]
    assert board.explained(lr, scores) > 0.95
    assert board.explained(noise, scores) < 0.1


def test_settings_that_only_follow_a_model_s_choice_are_not_listed(fake_run):
    """model=llama changes three settings at once: they are one choice, not three."""
    for i, model in enumerate(["llama", "llama", "transformer", "transformer"]):
        fake_run(f"outputs/runs/d/{i}", f"model={model}", f"seed={i}", scores=(8.0, 2.0 + i))
    found = board.varied(records.find([Path("outputs")]))
    assert len(found) == 1


@timed
@pytest.mark.faults
def test_settings_of_very_many_runs_are_told_apart_in_proportion_to_their_number():
    """Each value's place was looked for among all of them."""
    taken = []
    for n in (5_000, 20_000):
        runs = [types.SimpleNamespace(settings={"optimizer.lr": i}) for i in range(n)]
        began = time.process_time()
        assert len(board.distinct([{"key": "optimizer.lr", "share": 1.0, "n": n}], runs)) == 1
        taken.append(time.process_time() - began)
    assert taken[1] < 4 * 2 * taken[0]


def test_few_points_of_a_long_curve_have_its_extremes_and_its_ends():
    """Points at equal distances left out the one step of a million at which a loss jumped."""
    curve = [(step, 3.0 + step % 7 / 100) for step in range(100_001)]
    curve[33_333] = (33_333, 99.0)
    curve[77_777] = (77_777, -1.0)
    kept = thinning.with_extremes(curve, 120)
    assert len(kept) <= 120 and kept == sorted(kept) and set(kept) <= set(curve)
    assert {curve[0], curve[33_333], curve[77_777], curve[-1]} <= set(kept)
    for n in (0, 1, 4, 120):
        assert thinning.with_extremes(curve[:n], 120) == curve[:n]
    assert len(thinning.with_extremes(curve[:121], 120)) <= 120
