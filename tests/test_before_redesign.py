"""What an older version wrote is read by this one: a run, a sweep, a search and their cache."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lm import tokenizers
from lm.data import pipeline
from lm.record import checkpoint
from lm.record.run import Run
from lm.record.schemas import CodeRecord, DataRecord, Summary, read_part
from lm.report import folding, records
from lm.scoring import evaluate

OLD = Path(__file__).parent / "data" / "before_redesign"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of what was written, as the current directory; its text is toy.txt beside the runs."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("LM_CACHE_DIR", "cache")
    return tmp_path


def stages(text: str) -> dict[str, str]:
    """Whether each stage of the data was built or reused, as the log says."""
    return dict(re.findall(r"^(corpus|tokenizer|tokens) .*?(built|reused)", text, re.M))


def test_a_run_scores_what_it_scored_and_its_cache_is_reused(old, caplog):
    caplog.set_level(logging.INFO)
    run = Run.open("run")
    prepared = pipeline.prepare(run.cfg)
    assert stages("\n".join(caplog.messages)) == dict.fromkeys(
        ("corpus", "tokenizer", "tokens"), "reused"
    )
    assert prepared.tokenizer.fingerprint == run.tokenizer.fingerprint
    found = evaluate(run.model(), prepared.val, run.tokenizer.token_lengths())
    summary = json.loads((old / "run" / "summary.json").read_text())
    assert found["bpb"] == pytest.approx(summary["val/bpb"], abs=1e-4)


def test_the_records_of_a_run_are_read(old):
    summary = read_part(old / "run", Summary)
    assert (summary.step, summary.n_params, summary.best_step) == (20, 7600, 20)
    data = read_part(old / "run", DataRecord)
    assert (data.tokens.splits.val.n_bytes, data.corpus.file_names()) == (375, ["toy.txt"])
    code = read_part(old / "run", CodeRecord)
    assert (code.hydra_core, code.exact_resume, code.extended) == ("1.3.8", True, [])


def test_the_whole_state_of_a_run_is_taken_over(old):
    run = Run.open(str(old / "run"))
    model = run.cfg.model.build(run.tokenizer.vocab_size)
    optimizers = run.cfg.optimizer.build(model)
    assert checkpoint.resume(old / "run", model, optimizers).step == 20
    saved = load_file(checkpoint.folder(old / "run", 20) / "optimizer.safetensors")
    held = [tensor for o in optimizers for values in o.state.values() for tensor in values.values()]

    def fingerprint(tensors):
        return sorted((tuple(t.shape), t.double().sum().item()) for t in tensors)

    assert fingerprint(held) == fingerprint(saved.values()) and len(held) > 10


def test_a_run_goes_on_about_as_it_would_have_gone_on(old, command):
    done = command("lm.train", "resume=run", "train.steps=30", LM_CACHE_DIR="cache")
    assert done.returncode == 0, done.stderr
    assert "resumed from step_000020" in done.stdout + done.stderr
    assert set(stages(done.stdout).values()) == {"reused"}
    last, grown = (
        json.loads(path.read_text().splitlines()[-1])
        for path in (old / "run" / "metrics.jsonl", old / "grown_metrics.jsonl")
    )
    assert last["step"] == grown["step"] == 30
    # Since then batches are drawn in another order, and each update has the rate of the next one.
    assert last["val/bpb"] == pytest.approx(grown["val/bpb"], abs=2e-2)


@pytest.mark.parametrize("name", ["sweep", "search"])
def test_a_sweep_and_a_search_are_reported(old, command, name):
    done = command("lm.report", name, LM_CACHE_DIR="cache")
    assert done.returncode == 0, done.stderr
    runs = records.find([old / name])
    assert runs and all(run.status == "done" for run in runs)
    for arm in folding.fold_seeds(runs):
        assert f"{arm.mean:.4f}" in done.stdout


def test_a_tokenizer_encodes_as_it_did(old):
    tokenizer = tokenizers.load(old / "run" / "tokenizer.json")
    text = (old / "toy.txt").read_text()
    assert tokenizer.decode(tokenizer.encode_ordinary(text)) == text
    recorded = read_part(old / "run", DataRecord).tokens
    assert (tokenizer.fingerprint, tokenizer.vocab_size) == (
        recorded.tokenizer,
        recorded.vocab_size,
    )
