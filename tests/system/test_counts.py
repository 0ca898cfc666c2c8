"""Thousands of runs, a million points, fifty processes: what is asked of them ends, and soon.

The limits are of processor time, as other work on the machine takes its share of a clock's.
`python -m tests.measured lm.report FOLDER` measures one's own.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from lm import completion, config
from lm.record.find import find_run
from lm.record.schemas import DataRecord
from lm.sweep import ranking
from lm.system import files
from lm.system.schemas import CorpusRecord, Splits, TextCounts, TokenCounts, TokensRecord
from tests.helpers import ROOT, timed
from tests.sweep.searches import trials

pytestmark = [pytest.mark.faults, pytest.mark.slow]
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")


def make_arms(root: Path, n_arms: int, cfg: config.Config) -> None:
    """The directories of a sweep's arms, a learning rate each, with 31 points of their curves."""
    counts = Splits(TokenCounts(4000, 8000), TokenCounts(500, 1000))
    sizes = Splits(TextCounts(9, 8000), TextCounts(1, 1000))
    text = CorpusRecord({}, "document", sizes, Splits("a", "b"))
    about = DataRecord(text, TokensRecord("uint16", 10, "t1", "c1", counts))
    rows = []
    for step in range(31):
        row = {"step": step, "tokens": 512 * step, "seconds": 0.1 * step, "train/loss": 3 - step}
        rows.append(row | {"optim/lr": 0.01, "optim/grad_norm": 0.15, "val/bpb": 4 - step / 20})
    root.mkdir(parents=True)
    (root / "data.json").write_text(files.to_json(about))
    (root / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config.save(cfg, root / "settings.yaml")
    settings = (root / "settings.yaml").read_text()
    end = {"val/loss": 2.3, "step": 30, "tokens": 15360, "seconds": 3.0, "n_params": 9, "flops": 9}
    rng = random.Random("scores of many arms")
    for number in range(n_arms):
        out = root / str(number)
        out.mkdir()
        for name in ("data.json", "metrics.jsonl"):
            os.link(root / name, out / name)
        lr = 0.001 * (number + 1)
        score = rng.uniform(2, 4)
        words = [f"optimizer.lr={lr:g}", "model=bigram", "seed=0"]
        result = {"overrides": words, "status": "ok", "value": score, "error": None}
        summary = end | {"val/bpb": score, "best_val_bpb": score, "best_step": 30}
        (out / config.RESOLVED).write_text(settings.replace("lr: 0.01", f"lr: {lr:g}"))
        (out / "result.json").write_text(json.dumps(result))
        (out / "summary.json").write_text(json.dumps(summary))
    for name in ("data.json", "metrics.jsonl", "settings.yaml"):
        (root / name).unlink()


@pytest.fixture(scope="module")
def arms(composed, tiny, tmp_path_factory):
    """A sweep's directory with 10,000 arms."""
    root = tmp_path_factory.mktemp("many") / "sweep"
    make_arms(root, 10_000, composed((*tiny, "model=bigram", "optimizer.lr=0.01")))
    return root


def measured(*words: str) -> dict[str, float]:
    """What a command costs, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.measured", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.rpartition("measured ")[2])


@linux
@timed
def test_ten_thousand_arms_are_ranked_in_5_s_and_reported_soon_after(
    arms, tmp_path, record_property
):
    start = time.process_time()
    rows = ranking.fold(ranking.read(arms), arms)
    assert ranking.table(rows).count("\n") == 10_000
    ranked = time.process_time() - start
    found = measured("lm.report", str(arms), "out=page.html")
    record_property("report of 10,000 arms", f"ranked {ranked:.1f} s; {found}")
    assert ranked < 5
    assert found["cpu"] < 60 and found["mb"] < 2000  # other work on the cores doubles the first
    page = Path("page.html").read_text(encoding="utf-8")
    assert page.count("optimizer.lr") >= 10_000


@linux
@timed
def test_a_million_points_of_one_run_are_reported_with_their_extremes(
    arms, tmp_path, record_property
):
    out = tmp_path / "run"
    out.mkdir()
    for name in (config.RESOLVED, "summary.json", "data.json"):
        (out / name).write_bytes((arms / "0" / name).read_bytes())
    with open(out / "metrics.jsonl", "w") as file:
        for step in range(1_000_000):
            row = {"step": step, "tokens": 512 * step, "seconds": step / 100, "epoch": step / 1e5}
            row |= {"train/loss": 3.0 + step % 7 / 100, "optim/lr": 0.025, "optim/grad_norm": 0.15}
            row["val/bpb"] = 2.0 + step % 5 / 100
            if step == 333_333:
                row |= {"train/loss": 99.125, "val/bpb": 1.0625}
            file.write(json.dumps(row) + "\n")
    found = measured("lm.report", "run", "out=page.html")
    record_property("report of a million points", str(found))
    page = Path("page.html").read_text(encoding="utf-8")
    assert "99.125" in page and "1.0625" in page
    assert len(page) < 200_000 and Path("page-curves.svg").stat().st_size < 1_000_000
    assert found["cpu"] < 30 and found["mb"] < 2000


@timed
def test_among_two_thousand_runs_the_latest_is_found_and_completed_at_once(tmp_path):
    for number in range(2_000):
        out = Path(f"outputs/runs/2026-01-01/{number}")
        (out / "checkpoints/step_000040").mkdir(parents=True)
        (out / config.RESOLVED).touch()
        os.utime(out / config.RESOLVED, (0, number == 77))
    start = time.process_time()
    assert find_run("latest") == Path("outputs/runs/2026-01-01/77")
    for words in (["sample", "run="], ["train", "resume="]):
        word = f"{words[1]}outputs/runs/2026-01-01/"
        assert len(completion.completed([words[0], word])) == 2_000
    assert time.process_time() - start < 2


def test_fifty_processes_share_one_search_and_none_of_its_trials_is_lost_or_done_twice(tmp_path):
    pytest.importorskip("optuna")
    root = tmp_path / "search"
    root.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweep.crowd", str(root), "50", "100"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    there = trials(root)
    assert Counter(trial.state.name for trial in there) == {"COMPLETE": 100}
    assert len({trial.params["a"] for trial in there}) == 100
    told = [json.loads(line)["trial"] for line in (root / "trials.jsonl").read_text().splitlines()]
    assert sorted(told) == list(range(100))
