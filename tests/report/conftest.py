"""Runs by hand for the tests of reports."""

import json
from pathlib import Path

import pytest

from lm import config
from lm.record.schemas import DataRecord
from lm.report import records
from lm.system import files
from lm.system.schemas import CorpusRecord, Splits, TextCounts, TokenCounts, TokensRecord


@pytest.fixture
def fake_run(cfg, tmp_path):
    """fake_run("outputs/runs/d/r", "model=gru", scores=[8, 3, 2]): a run directory by hand."""
    composed: dict[tuple[str, ...], config.Config] = {}

    def make(where, *words, scores=(8.0, 3.0, 2.0), done=True, corpus="c1", **extra):
        path = tmp_path / where
        path.mkdir(parents=True)
        if words not in composed:
            composed[words] = cfg(*words)
        config.save(composed[words], path / config.RESOLVED)
        counts = Splits(TokenCounts(4000, 8000), TokenCounts(500, 1000))
        tokens = TokensRecord("uint16", 10, extra.get("tokenizer", "t1"), corpus, counts)
        sizes = Splits(TextCounts(9, 8000), TextCounts(1, 1000))
        text = CorpusRecord({}, "document", sizes, Splits("a", "b"))
        (path / "data.json").write_text(files.to_json(DataRecord(text, tokens)))
        (path / "code.json").write_text(json.dumps({"git_commit": "abcdef0123", "python": "3.11"}))
        rows = [
            {"step": 10 * i, "tokens": 100 * i, "seconds": i * 1.0, "val/bpb": s, "val/loss": s}
            for i, s in enumerate(scores)
        ]
        (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        if done:
            best = min(range(len(scores)), key=lambda i: scores[i])
            last = rows[-1]
            summary = {"val/bpb": scores[-1], "val/loss": scores[-1], "best_val_bpb": scores[best]}
            summary |= {"best_step": 10 * best, "step": last["step"], "tokens": last["tokens"]}
            summary |= {"seconds": 2.0, "n_params": 10, "flops": last["tokens"] * 60}
            summary |= extra.get("summary", {})
            (path / "summary.json").write_text(json.dumps(summary))
        hydra = path / ".hydra"
        hydra.mkdir()
        (hydra / "overrides.yaml").write_text("".join(f"- {w}\n" for w in words) or "[]\n")
        return path

    return make


@pytest.fixture
def three_arms(fake_run):
    """Three arms of three seeds each, as the report finds them."""
    for i, (model, base) in enumerate([("gru", 2.0), ("mlp", 2.5), ("transformer", 1.5)]):
        for seed in range(3):
            fake_run(
                f"outputs/sweeps/d/s/{3 * i + seed}",
                "name=900_x",
                f"model={model}",
                f"seed={seed}",
                scores=(8.0, base + 1, base + 0.01 * seed),
            )
    return records.find([Path("outputs")])
