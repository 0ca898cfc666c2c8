"""The doctor finds what training did wrong."""

import json
import shutil

import numpy as np
import pytest
import torch

from lm import config
from lm.check import doctor, evidence, log_rules, model_rules
from lm.lens import probe
from tests.helpers import TINY_TRANSFORMER


def test_the_longest_copy_is_found():
    assert log_rules.longest_copy("xxhello worldyy", "say hello world") == "hello world"
    assert log_rules.longest_copy("abc", "xyz") == ""


@pytest.mark.parametrize(
    ("values", "verdict", "text"),
    [
        ([3.0, 2.0, 1.9, 2.4], "look", "best at step 20 (1.9000) and rose to 2.4000"),
        ([3.0, 2.5, 2.2, 2.0], "note", "still fell by 9.1% from step 20 to 30"),
        ([3.0, 2.0, 1.9, 1.895], "ok", "level at the end, 1.8950"),
        ([3.0, 50.0, 6.0, 2.5], "look", "jumped to 50.0000 at step 10, from 3.0000"),
        ([3.0, 3.1, 4.0], "look", "jumped to 4.0000 at step 20, from 3.0000"),
        ([3.0, 2.0, 4.0], "look", "best at step 10 (2.0000) and rose to 4.0000"),
        ([3.0, 2.999, 2.998], "look", "is 2.9980 at the end and was 3.0000 before training"),
    ],
)
def test_the_doctor_reads_the_end_of_the_validation_curve(values, verdict, text):
    falling = [(float(step), 3.0 - step / 20) for step in range(1, 10 * len(values))]
    found = log_rules.judge_curve([(10.0 * i, v) for i, v in enumerate(values)], falling)
    assert (found.verdict, text in found.detail) == (verdict, True)


def test_the_doctor_calls_no_training_that_came_apart_learning_by_heart():
    points = [(0.0, 6.0), (10.0, 4.0), (20.0, 3.5), (30.0, 5.0)]
    rising = [(step, 4.0 + abs(step - 20.0) / 10) for step in range(1, 30)]
    found = log_rules.judge_curve(points, rising)
    assert found.advice.startswith("training came apart: lower optimizer.lr")
    falling = [(step, 4.0 - step / 10) for step in range(1, 30)]
    found = log_rules.judge_curve(points, falling)
    assert found.advice.startswith("checkpoint=best holds that step; try train.steps=20")


def test_the_doctor_expects_a_range_test_to_come_apart(trained):
    (found,) = doctor.examine(trained(*TINY_TRANSFORMER, "schedule=range"))
    assert (found.name, found.verdict) == ("schedule", "note")


@pytest.mark.parametrize(
    ("model", "advice", "left"),
    [
        (
            config.TransformerConfig(),
            "lower optimizer.lr, set model.qk_norm=true",
            "lower optimizer.lr",
        ),
        (
            config.TransformerConfig(qk_norm=False),
            "set model.qk_norm=true",
            "set model.qk_norm=true",
        ),
        (config.BigramConfig(), "more text or model.dropout=0.1, as it is", "more text, as it is"),
        (config.GRUConfig(), "more text, model.dropout=0.1", "more text, model.dropout=0.1"),
        (config.GRUConfig(dropout=0.2), "more text, model.dropout=0.1", "more text"),
        (config.GRUConfig(), "dead: smaller, or try model.activation=gelu", "dead: smaller"),
    ],
)
def test_the_doctor_never_advises_a_setting_that_the_model_lacks_or_has_so(model, advice, left):
    assert doctor.possible_advice(advice, model) == left


def by_name(findings):
    return {finding.name: finding for finding in findings}


def test_the_doctor_of_a_short_run_says_it_learned_too_little(trained):
    found = by_name(doctor.examine(trained(*TINY_TRANSFORMER)))
    assert found["counts"].verdict in ("look", "note")
    assert "train.steps" in found["counts"].advice
    assert found["epochs"].verdict == "note"
    assert found["updates"].verdict == found["gradients"].verdict == "ok"
    assert "longest copy" in found["copies"].detail


def test_the_doctor_finds_dead_units(trained, monkeypatch):
    out = trained(*TINY_TRANSFORMER, "model.bias=true")
    load = doctor.Run.model

    def killed(self, which="best"):
        model = load(self, which)
        with torch.no_grad():
            model.blocks[1].mlp.up.bias.fill_(-100.0)
        return model

    monkeypatch.setattr(doctor.Run, "model", killed)
    found = by_name(doctor.examine(out))["dead units"]
    assert found.verdict == "look"
    assert found.detail.startswith("100.0% of the inputs of blocks.1.mlp.down")


def test_the_doctor_finds_text_learned_by_heart(trained, toy_text):
    out = trained(*TINY_TRANSFORMER)
    text = toy_text.read_text(encoding="utf-8")[2000:2300]
    (out / "samples.jsonl").write_text(json.dumps({"step": 20, "text": text}) + "\n")
    found = by_name(doctor.examine(out))["copies"]
    assert found.verdict == "look"
    assert "longest copy in the samples: 300 characters" in found.detail


def test_the_doctor_asks_for_no_more_steps_on_a_text_read_too_often(trained):
    out = trained(*TINY_TRANSFORMER)
    summary = json.loads((out / "summary.json").read_text())
    summary |= {"tokens": 10**9, "best_val_bpb": 3.0}  # between unigram and bigram counts
    (out / "summary.json").write_text(json.dumps(summary))
    found = by_name(doctor.examine(out))
    assert found["epochs"].verdict == "look"
    assert "more steps only fit this text closer" in found["counts"].advice


def test_the_doctor_finds_a_score_below_the_entropy_of_the_source(trained, cfg):
    out = trained(*TINY_TRANSFORMER)
    summary = json.loads((out / "summary.json").read_text())
    summary |= {"corpus/floor_bpb": summary["best_val_bpb"] + 0.1}
    (out / "summary.json").write_text(json.dumps(summary))
    assert by_name(doctor.examine(out))["counts"].verdict == "failed"


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "ok"), (1.5, "look")])
def test_the_doctor_finds_a_model_that_is_too_sure_of_itself(factor, verdict, cfg, tiny):
    """Text drawn from a known table, and a model of that table that is `factor` times as sure."""
    model = cfg(*tiny, "model=bigram_counts").model.build(5)
    random, ids = np.random.default_rng(0), [0]
    p = random.dirichlet(np.ones(5), size=5)  # of the token after each
    while len(ids) < 20_000:
        ids.append(random.choice(5, p=p[ids[-1]]))
    model.fit(np.array(ids, np.uint16))
    plain = model.forward
    model.forward = lambda ids: factor * plain(ids)
    nats = evidence.nats_by_temperature(model, np.array(ids), evidence.TEMPERATURES)
    found = model_rules.judge_confidence(nats)
    assert found.verdict == verdict
    assert found.detail.endswith(f"at the best temperature, {factor:g}")


def test_the_doctor_does_without_the_findings_of_a_text_of_one_token(trained, monkeypatch):
    """One token predicts none."""
    monkeypatch.setattr(evidence, "MAX_TOKENS", 1)
    found = by_name(doctor.examine(trained(*TINY_TRANSFORMER)))
    assert "epochs" in found and not {"train, val", "confidence"} & set(found)


@pytest.mark.parametrize("name", ["transformer", "gru"])
def test_the_sizes_of_the_doctor_are_those_that_the_lens_sees(name, cfg, tiny):
    torch.manual_seed(0)
    model = cfg(*tiny, f"model={name}").model.build(9)
    ids = torch.randint(9, (2, 8))
    found = model_rules.judge_activations(model_rules.activation_sizes(model, ids))
    seen = [out.square().mean().sqrt() for _, out in probe.record(model, ids).layers]
    assert len(seen) > 1
    assert found.detail.endswith(" -> ".join(f"{size:.3g}" for size in seen))


@pytest.mark.parametrize("model", ["gru", "mlp", "bigram", "bigram_counts", "ngram"])
def test_the_doctor_reads_a_run_of_every_model(trained, model):
    found = by_name(doctor.examine(trained(f"model={model}")))
    trains = "counts" not in model and model != "ngram"
    assert (found["counts"].verdict == "ok") == (not trains)  # 20 steps teach too little
    assert ("train, val" in found) == ("updates" in found) == trains


def test_the_doctor_names_validation_text_that_stands_in_the_training_text(trained, tmp_path):
    def overlap(text):
        path = tmp_path / "planted.txt"
        path.write_text(text, encoding="utf-8")
        out = trained(f"corpus.path={path}", "model=bigram_counts")
        found = by_name(doctor.examine(out))["overlap"]
        shutil.rmtree(out)
        return found

    random = np.random.default_rng(0)
    new = "".join(random.choice(list("abcdefgh "), 10_000))
    found = overlap(new)
    assert found.verdict == "ok"
    assert found.detail.startswith("0.0% of all runs of 30 tokens in val")
    found = overlap(new[:9700] + new[:300])
    assert found.verdict == "look" and 0.2 < float(found.detail.split("%")[0]) / 100 < 0.31
    assert "corpus.near_duplicates" not in found.advice  # one text has no documents to leave out
