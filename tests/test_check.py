"""The check of a model finds each broken promise; the doctor finds what training did wrong."""

import numpy as np
import pytest
import torch
from torch import nn

from lm import config, evaluate
from lm.check import conformance, doctor
from lm.lens import probe
from lm.models.base import LanguageModel
from tests.helpers import TINY_TRANSFORMER

V = 37


class Good(LanguageModel):
    """A small model that keeps every promise, for the broken ones to differ from."""

    trouble = ""

    def __init__(self, cfg, vocab_size):
        super().__init__(cfg, vocab_size)
        self.wte = nn.Embedding(vocab_size, 32)
        self.gru = nn.GRU(32, 32, batch_first=True)
        self.head = nn.Linear(32, vocab_size)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.spare = nn.Parameter(torch.ones(3)) if self.trouble == "spare" else None
        self.secret = 1.0 + torch.rand(()).item() if self.trouble == "secret" else 1.0
        self.gain = torch.rand(32) if self.trouble == "plain tensor" else torch.ones(())
        self.hidden = ("gru", "layerz") if self.trouble == "group" else ("gru",)
        if self.trouble == "sure":
            nn.init.normal_(self.head.weight, std=3.0)
        if self.trouble == "stuck":
            self.gru.requires_grad_(False)

    def forward(self, ids):
        x = self.wte(ids) * self.gain
        if self.trouble == "future":
            x = x + 0.1 * x.mean(dim=1, keepdim=True)
        if self.trouble == "deaf":
            x = torch.cat([torch.zeros_like(x[:, :3]), x[:, 3:]], dim=1)
        h = self.gru(x)[0]
        if self.trouble == "constant":
            h = h * 0
        logits = self.head(h).float() * self.secret
        if self.trouble == "short":
            logits = logits[:, :, 1:]
        if self.trouble == "no number":
            logits = logits * float("nan")
        if self.trouble == "half":
            logits = logits.bfloat16()
        return logits

    def step(self, ids, state, lengths=None):
        logits = super().step(ids, state, lengths)
        return logits + 0.5 if self.trouble == "cache" else logits


def bench(trouble: str, monkeypatch) -> conformance.Bench:
    torch.manual_seed(0)
    monkeypatch.setattr(Good, "trouble", trouble)
    monkeypatch.setattr(config.BigramConfig, "builds", "tests.test_check:Good")
    cfg = config.Config(
        corpus=config.GrammarConfig(),
        tokenizer=config.ByteConfig(),
        model=config.BigramConfig(context_len=16),
        optimizer=config.AdamWConfig(),
        schedule=config.ConstantConfig(),
    )
    return conformance.Bench(cfg, V, torch.device("cpu"))


def test_a_good_model_passes_every_check(monkeypatch):
    found = list(conformance.examine(bench("", monkeypatch)))
    assert [name for name, verdict, _ in found if verdict != "ok"] == []
    assert len(found) == len(conformance.CHECKS) == 11


@pytest.mark.parametrize(
    ("trouble", "check", "message"),
    [
        ("short", "shapes", "not (B, T, V)"),
        ("half", "shapes", "return them as float32"),
        ("future", "causality", "it sees the future"),
        ("deaf", "memory", "position 0 never reaches position 15"),
        ("sure", "first loss", "start the last layer with smaller weights"),
        ("constant", "one batch", "it does not learn"),
        ("cache", "cache", "step() and forward() differ by 0.5"),
        ("no number", "cache", "step() and forward() differ by nan"),
        ("no number", "causality", "by nan: it sees the future"),
        ("no number", "gradients", "is infinite or not a number"),
        ("secret", "save, load", "the loaded model answers differently"),
        ("plain tensor", "save, load", "answers differently: gain is not saved"),
        ("spare", "gradients", "no gradient reaches spare"),
        ("stuck", "gradients", "no gradient reaches gru.weight_ih_l0"),
    ],
)
def test_a_broken_promise_is_found_and_named(trouble, check, message, monkeypatch):
    function = conformance.CHECKS[check]
    with pytest.raises(conformance.Broken) as broken:
        function(bench(trouble, monkeypatch))
    assert message in str(broken.value)


def test_a_hidden_part_that_is_not_there_is_named_with_those_that_are(monkeypatch):
    found = {n: detail for n, _, detail in conformance.examine(bench("group", monkeypatch))}
    assert "names layerz: it has ['wte', 'gru', 'head']" in found["optimizers"]


def test_an_error_in_the_model_is_a_finding_and_the_rest_goes_on(monkeypatch):
    subject = bench("", monkeypatch)

    def crash(self, ids):
        raise RuntimeError("shapes cannot be\nmultiplied")

    monkeypatch.setattr(Good, "forward", crash)
    found = list(conformance.examine(subject))
    assert found[0] == ("shapes", "failed", "RuntimeError: shapes cannot be multiplied")
    assert len(found) == len(conformance.CHECKS)


@pytest.mark.parametrize("name", sorted(config.options("model")))
def test_every_model_of_the_package_keeps_its_promises(name, cfg):
    made = cfg(f"model={name}", *(TINY_TRANSFORMER if name == "transformer" else ()))
    made.model.context_len = 16
    train = torch.randint(0, V, (400,)).numpy()
    found = conformance.examine(conformance.Bench(made, V, torch.device("cpu"), train))
    assert [(n, d) for n, verdict, d in found if verdict == "failed"] == []


def test_what_one_batch_allows_is_the_entropy_of_its_own_continuations():
    ids = torch.tensor([[1, 2, 1, 3, 1, 2]])
    # after 1 come 2, 3, 2; after 2 comes 1; after 3 comes 1
    expected = (
        3 / 5 * -(2 / 3 * torch.log(torch.tensor(2 / 3)) + 1 / 3 * torch.log(torch.tensor(1 / 3)))
    )
    assert conformance._floor(ids, memory=0) == pytest.approx(expected.item())
    assert conformance._floor(ids, memory=5) == 0.0


def test_the_longest_copy_is_found():
    assert doctor.longest_copy("xxhello worldyy", "say hello world") == "hello world"
    assert doctor.longest_copy("abc", "xyz") == ""


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
    (found,) = doctor._curve([(10.0 * i, v) for i, v in enumerate(values)], falling)
    assert (found.verdict, text in found.detail) == (verdict, True)


def test_the_doctor_calls_no_training_that_came_apart_learning_by_heart():
    points = [(0.0, 6.0), (10.0, 4.0), (20.0, 3.5), (30.0, 5.0)]
    rising = [(step, 4.0 + abs(step - 20.0) / 10) for step in range(1, 30)]
    (found,) = doctor._curve(points, rising)
    assert found.advice.startswith("training came apart: lower optimizer.lr")
    falling = [(step, 4.0 - step / 10) for step in range(1, 30)]
    (found,) = doctor._curve(points, falling)
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
    assert doctor._possible(advice, model) == left


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
    import json

    out = trained(*TINY_TRANSFORMER)
    text = toy_text.read_text(encoding="utf-8")[2000:2300]
    (out / "samples.jsonl").write_text(json.dumps({"step": 20, "text": text}) + "\n")
    found = by_name(doctor.examine(out))["copies"]
    assert found.verdict == "look"
    assert "longest copy in the samples: 300 characters" in found.detail


def test_the_doctor_asks_for_no_more_steps_on_a_text_read_too_often(trained):
    import json

    out = trained(*TINY_TRANSFORMER)
    summary = json.loads((out / "summary.json").read_text())
    summary |= {"tokens": 10**9, "best_val_bpb": 3.0}  # between unigram and bigram counts
    (out / "summary.json").write_text(json.dumps(summary))
    found = by_name(doctor.examine(out))
    assert found["epochs"].verdict == "look"
    assert "more steps only fit this text closer" in found["counts"].advice


def test_the_doctor_finds_a_score_below_the_entropy_of_the_source(trained, cfg):
    import json

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
    spent = doctor._spent(model, np.array(ids), doctor.TEMPERATURES)
    (found,) = doctor._confidence(spent)
    assert found.verdict == verdict
    assert found.detail.endswith(f"at the best temperature, {factor:g}")


def test_the_doctor_does_without_the_findings_of_a_text_of_one_token(trained, monkeypatch):
    """One token predicts none."""
    monkeypatch.setattr(doctor, "MAX_TOKENS", 1)
    found = by_name(doctor.examine(trained(*TINY_TRANSFORMER)))
    assert "epochs" in found and not {"train, val", "confidence"} & set(found)


@pytest.mark.parametrize("name", ["transformer", "gru"])
def test_the_sizes_of_the_doctor_are_those_that_the_lens_sees(name, cfg, tiny):
    torch.manual_seed(0)
    model = cfg(*tiny, f"model={name}").model.build(9)
    ids = torch.randint(9, (2, 8))
    (found,) = doctor._sizes(model, ids)
    seen = [out.square().mean().sqrt() for _, out in probe.record(model, ids).layers]
    assert len(seen) > 1
    assert found.detail.endswith(" -> ".join(f"{size:.3g}" for size in seen))


def test_scoring_tokens_makes_no_more_logits_at_once_than_evaluation_does(cfg, tiny, monkeypatch):
    model = cfg(*tiny, "model=bigram").model.build(5)
    seen, plain = [], model.forward
    model.forward = lambda ids: seen.append(ids.numel()) or plain(ids)
    monkeypatch.setattr(evaluate, "LOGITS", 5 * 3 * model.context_len)  # three windows
    nats = evaluate.token_nats(model, np.arange(1000) % 5)
    assert nats.shape == (1, 999) and max(seen) == 3 * model.context_len


@pytest.mark.parametrize("model", ["gru", "mlp", "bigram", "bigram_counts", "ngram"])
def test_the_doctor_reads_a_run_of_every_model(trained, model):
    found = by_name(doctor.examine(trained(f"model={model}")))
    trains = "counts" not in model and model != "ngram"
    assert (found["counts"].verdict == "ok") == (not trains)  # 20 steps teach too little
    assert ("train, val" in found) == ("updates" in found) == trains


def test_a_check_that_fails_exits_with_1(command, tmp_path):
    """And a good one with 0; a model of one's own is named on the command line alone."""
    (tmp_path / "leaky.py").write_text(LEAKY, encoding="utf-8")
    (tmp_path / "conf/model").mkdir(parents=True)
    yaml = "defaults: [{/schema/model@_here_: leaky}, _self_]\n"
    (tmp_path / "conf/model/leaky.yaml").write_text(yaml)
    words = ("--config-dir", "conf", "model=leaky", "grammar=false")
    done = command("lm.check", "import=leaky", *words)
    assert done.returncode == 1, done.stderr
    assert "it sees the future" in done.stdout
    unknown = command("lm.check", *words)
    assert unknown.returncode == 2


LEAKY = """
from dataclasses import dataclass
from typing import ClassVar
from torch import nn
from lm.config import ModelConfig
from lm.models.base import LanguageModel

@dataclass
class LeakyConfig(ModelConfig):
    builds: ClassVar[str] = "leaky:Leaky"
    name: str = "leaky"

class Leaky(LanguageModel):
    def __init__(self, cfg, vocab_size):
        super().__init__(cfg, vocab_size)
        self.wte = nn.Embedding(vocab_size, 16)
        self.head = nn.Linear(16, vocab_size)

    def forward(self, ids):
        x = self.wte(ids)
        return self.head(x + x.mean(dim=1, keepdim=True)).float()
"""


def test_no_file_can_name_a_module_to_import(command, tiny, tmp_path):
    (tmp_path / "evil.py").write_text("open('done', 'w')")
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/evil.yaml").write_text(
        "defaults: [{/schema/model@_here_: bigram}, _self_]\nimport: evil\nbuilds: 'evil:x'\n"
    )
    done = command("lm.train", "--config-dir", "conf", *tiny, "model=evil")
    assert done.returncode == 2
    assert "'import' not in" in done.stderr or "unknown setting" in done.stderr
    saved = tmp_path / "run"
    saved.mkdir()
    (saved / "config.resolved.yaml").write_text(
        "import: evil\nmodel: {name: evil, builds: 'evil:x'}"
    )
    assert command("lm.sample", f"run={saved}").returncode == 2
    assert not (tmp_path / "done").exists()


def test_an_import_that_is_not_there_is_told_in_one_line(command):
    done = command("lm.check", "import=nowhere.mine", "model=mine")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "import=nowhere.mine: there is no such module" in done.stderr
