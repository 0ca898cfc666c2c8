"""W&B mirrors the run's own files, and nothing that happens to it changes a weight or a number."""

import contextlib
import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lm
from lm import config, sync, update
from lm.record import checkpoint, wandb_client, wandb_mirror, wandb_mode
from lm.record.state import TrainState
from lm.record.tracker import FileTracker, cut_back
from lm.system import failpoint, files
from lm.system.errors import NonFiniteError, StorageError
from lm.train import train as train_run
from tests.helpers import (
    ROOT,
    TINY_TRANSFORMER,
    as_plotted,
    history,
    inspected,
    mirrored,
    offline_runs,
    start,
    timed,
)
from tests.terminals import read_until, terminal
from tests.wandb_server import WandbServer

QUICK = ("track.init_timeout=2", "track.finish_timeout=120")
IN_VAIN = "track.init_timeout=1"  # where no server answers


@pytest.fixture
def train(cfg, tiny, tmp_path):
    """train("name", "track=offline"): a whole run in this process; its directory."""

    def make(name: str, *words: str, group: str | None = None) -> Path:
        out = tmp_path / "outputs/runs" / name
        out.mkdir(parents=True, exist_ok=True)
        loaded = cfg(*tiny, *TINY_TRANSFORMER, *QUICK, *words)
        config.save(loaded, out / config.RESOLVED)
        train_run(loaded, out, group)
        return out

    return make


@pytest.fixture
def tracker(cfg, tmp_path):
    def make(*words: str, step: int = 0) -> FileTracker:
        return FileTracker(tmp_path, cfg("track=off", *words), TrainState(step), lambda _: 0.0)

    return make


def wait_until_open(out: Path) -> None:
    """Until W&B's thread has opened the run."""
    deadline = time.monotonic() + 60
    while not json.loads((out / "wandb.json").read_text())["path"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def digest(out: Path) -> str:
    """The sha256 of the last weights."""
    folder = checkpoint.folder(out, checkpoint.steps(out)[-1])
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def points(out: Path) -> list[dict]:
    text = (out / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def numbers(rows: list[dict]) -> list[dict]:
    """What is the same whenever a run is repeated: clocks left out."""
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "speed/tokens_per_s")} for row in rows
    ]


# --------------------------------------------------------------------------- the run's own files

VALUES = [
    (float("nan"), "nan"),
    (float("inf"), "inf"),
    (-float("inf"), "-inf"),
    (torch.tensor(1.5), 1.5),
    (torch.tensor(float("nan")), "nan"),
    (torch.tensor([1, 2]), [1, 2]),
    (np.float32(0.5), 0.5),
    (np.int64(7), 7),
    (np.array([1.0, np.nan]), [1.0, "nan"]),
    (None, None),
    (True, True),
    (Path("x"), "x"),
    ("a" * 1_000_000, "a" * 1_000_000),
]


@pytest.mark.parametrize(("given_value", "stored"), VALUES, ids=[str(v)[:20] for v, _ in VALUES])
def test_any_metric_becomes_a_valid_line(tracker, tmp_path, given_value, stored):
    with tracker() as there:
        there.log(TrainState(3), {"odd/key \U0001f600": given_value})
    (row,) = points(tmp_path)
    assert row["odd/key \U0001f600"] == stored and row["step"] == 3


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=50))
def test_any_text_survives_as_a_sample(tmp_path_factory, text):
    """U+2028 and U+0085 end a line for str.splitlines, but not in JSON: such rows were cut off."""
    path = tmp_path_factory.mktemp("s") / "samples.jsonl"
    plain = text.encode("utf-8", "replace").decode()
    path.write_text(
        "".join(json.dumps({"step": n, "text": plain}, ensure_ascii=False) + "\n" for n in (1, 2)),
        encoding="utf-8",
        newline="\n",
    )
    cut_back(path, 2)
    (row,) = [json.loads(r) for r in path.read_text(encoding="utf-8").split("\n") if r]
    assert row == {"step": 1, "text": plain}


@pytest.mark.parametrize(
    "tail", ['{"step": 2, "tok', '{"step": 2}', "[1]\n", "null\n", "\x00\x00\n", '{"a": 1}\n']
)
def test_a_torn_or_strange_end_is_cut_off_on_resume(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n' + tail)
    cut_back(path, 5)
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n'


def test_a_damaged_line_costs_no_row_behind_it(tmp_path, caplog):
    """All rows behind it were cut off, and nothing was said."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\nmy own note\n{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    cut_back(path, 3)
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n{"step": 2}\n'
    assert "without its line 2, which is damaged" in caplog.text


def test_a_run_whose_checkpoints_are_gone_says_what_it_loses(tracker, tmp_path, caplog):
    """A copy without its checkpoints began again, and said nothing of the points it cut off."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 40}\n{"step": 4')
    with tracker():
        pass
    assert "has no checkpoint: it begins again, without its points up to step 40" in caplog.text
    caplog.clear()
    with tracker():
        pass
    assert not caplog.text


def test_points_of_the_checkpoint_s_step_and_later_are_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {n}}}\n' for n in (0, 10, 20, 20, 30)))
    assert cut_back(path, 20) > 4
    assert path.read_text() == '{"step": 0}\n{"step": 10}\n'


# --------------------------------------------------------------------------------- on a terminal


@pytest.mark.slow
def test_a_terminal_without_a_key_is_never_asked(tiny, started):
    """wandb.init in online mode would wait for an answer for ever."""
    words = [*tiny[:2], *tiny[3:], *TINY_TRANSFORMER, *QUICK, "track=online"]
    with terminal(150, 45) as (main, side):
        process = started("lm.train", *words, terminal=side, TERM="xterm-256color")
        seen = read_until(main, lambda _: process.poll() is not None)
        process.kill()
    assert process.returncode == 0, seen.decode(errors="replace")
    assert b"no API key here, so offline" in seen and b"Enter your choice" not in seen


# --------------------------------------------------------------------------------------- offline


def test_an_offline_run_has_the_numbers_of_metrics_jsonl(train, fresh_client, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_TAGS", "x,,y")
    with caplog.at_level("INFO"):
        out = train("a", "track=offline", "track.notes=why")
    assert "W&B: project=theirs, tags=x,y from the environment; not used: WANDB" in caplog.text
    (folder,) = offline_runs()
    records = inspected(folder)
    items = [r["history"]["item"] for r in records if r["type"] == "history"]
    assert mirrored(items) == as_plotted(points(out))
    assert ["baseline/ngram_bpb" in row for row in points(out)] == [
        "val/bpb" in row for row in points(out)
    ]
    assert sum("texts._type" in row for row in items) == 2
    (run,) = [r["run"] for r in records if r["type"] == "run"][:1]
    assert run["config"]["update"]["model.n_layer"] == 2
    config_updates = [r["config"]["update"] for r in records if r["type"] == "config"]
    assert any("baseline/ngram_bpb" in update for update in config_updates)
    final = {}
    for record in records:
        final |= record["summary"]["update"] if record["type"] == "summary" else {}
    assert final["baseline/ngram_bpb"] > 0
    assert final["epoch"] == [row["epoch"] for row in points(out) if "epoch" in row][-1]
    assert run["tags"] == ["x", "y"] and run["notes"] == "why" and run["project"] == "theirs"
    metrics = {r["metric"]["name"]: r["metric"] for r in records if "name" in r.get("metric", {})}
    assert metrics["bpb/val"]["step_metric"] == "tokens" and metrics["bpb/val"]["summary"]["min"]
    saved = {f["path"] for r in records if r["type"] == "files" for f in r["files"]["files"]}
    assert {"config.resolved.yaml", "code.json"} <= saved


def test_w_and_b_sums_up_a_run_by_its_lowest_score_a_resumed_one_too(
    tracker, tmp_path, fresh_client
):
    """The end of a run wrote the last score over the lowest: sorting and sweeps used that."""
    words = ("track=offline", "track.artifacts=none", "track.finish_timeout=120")
    scores = [3.0, 2.0, 2.5, 2.25]
    for first in (0, 2):
        with tracker(*words, step=first) as there:
            for step in (first, first + 1):
                bpb = scores[step]
                row = {"val/bpb": bpb, "val/loss": bpb / 2, "val/ppl": bpb * 2}
                there.log(TrainState(step), row)
            summary = {"val/bpb": bpb, "best_val_bpb": 2.0, "best_step": 1, "val/loss": bpb / 2}
            there.finish(summary)
        final = {}
        for record in inspected(offline_runs()[-1]):
            if record["type"] == "summary":
                final |= record["summary"]["update"]
        lowest = {"bpb/val": 2.0, "loss/val": 1.0, "ppl/val": 4.0}
        assert {key: final[key] for key in lowest} == {k: {"min": v} for k, v in lowest.items()}
        assert final["best_val_bpb"] == 2.0 and not {"val/bpb", "val/loss"} & final.keys()


def test_a_sweep_s_runs_are_called_by_what_sets_its_arms_apart(tiny, command):
    words = [word for word in (*tiny, "model=bigram") if word != "track=off"]
    done = command("lm.train", "-m", *words, "track=offline", "optimizer.lr=0.01,0.003", "seed=1")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [r["run"] for f in offline_runs() for r in inspected(f) if r["type"] == "run"]
    assert {run["display_name"] for run in runs} == {"bigram lr=0.01", "bigram lr=0.003"}
    assert len({run["run_group"] for run in runs}) == 1


@pytest.mark.slow
def test_the_review_in_the_terminal_begins_with_bits_per_byte_and_losses(train, fresh_client):
    """What `make review` starts."""
    train("a", "track=offline")
    with terminal(150, 45) as (main, side):
        process = subprocess.Popen(
            [sys.executable, "-m", "wandb", "leet", "outputs/wandb"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
            start_new_session=True,
            **dict.fromkeys(("stdin", "stdout", "stderr"), side),
        )
        seen = read_until(main, lambda seen: b"speed/tok" in seen or process.poll() is not None)
        code = process.poll()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with its children: one of its own draws
        process.wait()
    first = [b"bpb/val", b"loss/train", b"loss/val", b"optim/grad_norm", b"optim/lr", b"ppl/val"]
    places = [seen.find(name) for name in first]
    assert -1 not in places and places == sorted(places) and b"transformer" in seen, (
        code,
        seen[-3000:],
    )


def test_of_points_too_fast_for_w_and_b_the_newest_are_sent_and_every_evaluation(
    tracker, tmp_path, monkeypatch
):
    sent = []
    monkeypatch.setattr(wandb_mirror, "RATE", 0)
    client = {"id": "a", "offline": True, "dir": tmp_path / "client", "save": lambda *_, **__: 0}
    (tmp_path / "client").mkdir()
    run = SimpleNamespace(log=sent.append, finish=lambda **_: None, **client)
    monkeypatch.setattr(wandb_client, "open_run", lambda *_: (run, ""))
    with tracker("track=offline") as there:
        for step in range(2 * wandb_mirror.BURST):
            if step == wandb_mirror.BURST + 7:
                there.log(TrainState(step), {"val/bpb": 2.0})
            there.log(TrainState(step), {"train/loss": 4.0})
    steps = [row["step"] for row in sent]
    # The burst; the newest point before the evaluation, and that; the newest at the end.
    assert steps[: wandb_mirror.BURST] == list(range(wandb_mirror.BURST))
    assert steps[wandb_mirror.BURST :] == [
        wandb_mirror.BURST + 6,
        wandb_mirror.BURST + 7,
        2 * wandb_mirror.BURST - 1,
    ]
    assert len(points(tmp_path)) == 2 * wandb_mirror.BURST + 1


def test_histograms_on_request_are_sent_and_change_no_weight(train, fresh_client):
    """Under the step of the gradients, though the points come at others."""
    good = train("plain", "track=off", "train.log_every=7")
    out = train("a", "track=offline", "track.histograms=4", "train.log_every=7")
    assert digest(out) == digest(good)
    items = [r["history"]["item"] for r in inspected(offline_runs()[0]) if r["type"] == "history"]
    drawn = [row for row in items if any(k.startswith("weight_gradients/") for k in row)]
    assert [row["step"] for row in drawn] == [0, 4, 8, 12, 16]
    assert [row["tokens"] for row in drawn] == [64 * row["step"] for row in drawn]
    assert any(k.startswith("weights/") for k in drawn[0])
    assert numbers(points(out)) == numbers(points(good))


def test_nothing_is_copied_into_the_home_directory(train, fresh_client, tmp_path):
    train("a", "track=offline")
    staged = [p for p in (tmp_path / "wandb-home").rglob("*") if p.is_file()]
    weights = max(p.stat().st_size for p in tmp_path.rglob("model.safetensors"))
    # The tables of samples alone, which W&B makes itself; no weights.
    assert sum(p.stat().st_size for p in staged if "logs" not in p.parts) < weights / 2


def test_two_jobs_in_one_process_are_two_runs_in_one_group(train, fresh_client):
    outs = [train(name, "track=offline", f"seed={name}", group="day-sweep") for name in "01"]
    folders = [Path(files.read_json(out / "wandb.json")["path"]).parent for out in outs]
    assert sorted(folders) == [path.absolute() for path in offline_runs()]
    for out, folder in zip(outs, folders, strict=True):
        (run,) = [r["run"] for r in inspected(folder) if r["type"] == "run"][:1]
        assert (run["run_group"], run["job_type"]) == ("day-sweep", "sweep")
        assert run["display_name"] == "transformer"
        assert history(folder) == as_plotted(points(out))


def test_a_failed_job_s_run_is_failed_and_the_next_one_is_its_own(
    train, fresh_client, monkeypatch, tmp_path
):
    with pytest.raises(NonFiniteError):
        train("0", "track=offline", "optimizer.lr=1e30", group="g")
    train("1", "track=offline", group="g")
    exits = []
    for folder in offline_runs():
        records = inspected(folder)
        exits += [r["exit"].get("exit_code", 0) for r in records if r["type"] == "exit"]
    assert sorted(exits) == [0, 3]  # the folders of one second come in any order
    alerts = [r for run in offline_runs() for r in inspected(run) if r["type"] == "alert"]
    titles = [record["alert"]["title"] for record in alerts]
    assert titles == ["training went back to a checkpoint", "training diverged"]


def test_what_cannot_wait_is_an_alert_and_many_spikes_are_few(tracker, server):
    with tracker("track=online", *QUICK) as there:
        for step in range(1, 9):
            there.log(TrainState(step), {"train/spike": 9.0, "train/loss": 3.0})
        there.log(TrainState(9), {"train/rollbacks": 1, "train/skipped": 4})
        there.alert("the disk refuses a checkpoint", "no space left")
    back, disk = "training went back to a checkpoint", "the disk refuses a checkpoint"
    assert server.alerts == ["the loss jumps", back, disk]


def test_a_disk_that_refuses_a_checkpoint_is_an_alert(train, fresh_client):
    failpoint.switch_on("ckpt.begin=enospc")
    with pytest.raises(StorageError):
        train("a", "track=offline")
    (folder,) = offline_runs()
    alerts = [r["alert"]["title"] for r in inspected(folder) if r["type"] == "alert"]
    assert {"the disk refuses a checkpoint", "the disk refused the last checkpoint"} <= set(alerts)


def test_the_doctor_s_findings_are_notes_of_the_run_below_its_user_s(train, fresh_client):
    out = train("a", "track=offline", "track.notes=why", "optimizer.lr=1e-9")
    found = [f for f in files.read_json(out / "doctor.json") if f["verdict"] in ("look", "failed")]
    notes = [r["run"]["notes"] for r in inspected(offline_runs()[0]) if r["type"] == "run"][-1]
    assert found and notes.startswith("why\n\nFrom lm, at the end of the run:\n- ")
    assert all(f"- {finding['name']}: {finding['detail']}" in notes for finding in found)


def test_a_resumed_run_keeps_its_id_and_its_curve_goes_on(cfg, tiny, tmp_path, fresh_client):
    words = (*tiny, *TINY_TRANSFORMER, *QUICK, "track=offline")
    out = tmp_path / "r"
    out.mkdir()
    train_run(cfg(*words), out, name="transformer seed=0")
    before = json.loads((out / "wandb.json").read_text())
    (out / "summary.json").unlink()
    train_run(cfg(*words, "train.steps=40"), out, name="transformer steps=40")
    after = json.loads((out / "wandb.json").read_text())
    assert after["id"] == before["id"]
    parts = [inspected(folder) for folder in offline_runs()]
    names = {r["run"]["display_name"] for part in parts for r in part if r["type"] == "run"}
    assert names == {"transformer seed=0"}
    first, second = (
        [r["history"]["item"] for r in part if r["type"] == "history"] for part in parts
    )
    # W&B drops points whose counter is not above the last one.
    assert second[0]["_step"] > first[-1]["_step"]
    steps = [row["step"] for row in points(out)]
    assert steps == sorted(steps) and steps[-1] == 40


# ---------------------------------------------------------------------------------------- online


def test_an_online_run_has_the_numbers_of_metrics_jsonl_on_the_server(train, server):
    out = train("a", "track=auto", group="day-sweep")
    record = json.loads((out / "wandb.json").read_text())
    run = server.runs[record["id"]]
    assert record["mode"] == "online"
    assert mirrored(run.rows) == as_plotted(points(out))
    assert (run.exit_code, run.variables["groupName"]) == (0, "day-sweep")
    assert f"model-{record['id']}" in server.committed
    assert any(name.startswith("tokenizer-") for name in server.committed)
    assert server.files["code.json"] == (out / "code.json").read_bytes()
    tables = [json.loads(v) for k, v in server.files.items() if k.startswith("media/table/texts")]
    assert sorted(table["data"][0][:2] for table in tables) == [[0, "The"], [20, "The"]]
    columns = ["step", "prompt", "text", "temperature", "seed"]
    assert all(table["columns"] == columns for table in tables)
    best = checkpoint.folder(out, checkpoint.steps(out)[-1])
    assert server.files["model.safetensors"] == (best / "model.safetensors").read_bytes()


def test_an_online_run_shows_its_lens_as_an_html_panel(train, server):
    out = train("a", "track=auto", "track.lens=true", "track.artifacts=none")
    (run,) = server.runs.values()
    (panel,) = [row["views/lens"] for row in run.rows if "views/lens" in row]
    assert panel["_type"] == "html-file"
    assert server.files[panel["path"]] == (out / "lens.html").read_bytes()


def test_a_model_in_w_and_b_says_its_score_its_training_its_text_and_its_code(train, server):
    out = train("a", "track=online")
    (model,) = [a for a in server.artifacts.values() if a["artifactTypeName"] == "model"]
    about = json.loads(model["metadata"])
    summary, code = (files.read_json(out / f"{name}.json") for name in ("summary", "code"))
    assert about["val/bpb"] == summary["best_val_bpb"]
    assert about["tokens"] == 64 * summary["best_step"] == 64 * about["step"]
    assert about["corpus"] == "files" and about["git_commit"] == code["git_commit"]
    assert {"latest", "best"} == {alias["alias"] for alias in model["aliases"]}


def test_a_run_of_an_older_version_goes_on_under_the_names_that_its_curves_have(
    tracker, tmp_path, fresh_client
):
    words = ("track=offline", "track.artifacts=none", "track.finish_timeout=120")
    record = {"id": "a1b2c3d4", "path": "x", "closed": True}
    (tmp_path / "wandb.json").write_text(json.dumps(record))
    row = {"val/bpb": 2.0, "val/loss": 1.0, "val/ppl": 4.0, "epoch": 1.0}
    with tracker(*words, step=1) as there:
        there.log(TrainState(1), row)
        there.finish({"val/bpb": 2.0, "best_step": 1})
    records = inspected(offline_runs()[-1])
    items = [r["history"]["item"] for r in records if r["type"] == "history"]
    assert any(row.items() <= item.items() for item in items)


def test_a_run_of_a_sweep_of_a_server_has_the_score_under_the_name_that_the_sweep_knows(
    tracker, fresh_client, monkeypatch
):
    """experiments/wandb_sweep.yaml lowers val/bpb."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    with tracker("track=offline", "track.finish_timeout=120") as there:
        there.log(TrainState(1), {"val/bpb": 2.0})
    (item,) = history(offline_runs()[-1])
    assert item["val/bpb"] == item["bpb/val"] == 2.0


def test_artifacts_name_what_they_were_made_from(train, server):
    train("a", "track=auto", "track.artifacts=all")
    made_from = {
        a["artifactCollectionName"].split("-")[0]: json.loads(a["metadata"]).get("made_from")
        for a in server.artifacts.values()
        if a.get("metadata")
    }
    heads = {k: sorted(n.split("-")[0] for n in v) for k, v in made_from.items() if v is not None}
    assert sorted(n.split("-")[0] for n in server.used) == ["corpus", "tokenizer", "tokens"]
    assert heads == {
        "corpus": [],
        "tokenizer": ["corpus"],
        "tokens": ["corpus", "tokenizer"],
        "model": ["tokenizer", "tokens"],
    }


def test_a_resumed_online_run_goes_on_with_the_same_curve(cfg, tiny, tmp_path, server, monkeypatch):
    monkeypatch.setenv("WANDB_NAME", "theirs")  # of all arms; each has a name to itself
    words = (*tiny, *TINY_TRANSFORMER, *QUICK, "track=online")
    out = tmp_path / "r"
    out.mkdir()
    train_run(cfg(*words), out, "sweep", name="transformer seed=0")
    (out / "summary.json").unlink()
    train_run(cfg(*words, "train.steps=40"), out, "sweep", name="transformer steps=40")
    ((uid, run),) = server.runs.items()
    assert run.variables["displayName"] == "theirs transformer seed=0"
    assert uid == json.loads((out / "wandb.json").read_text())["id"]
    counters = [row["_step"] for row in run.rows]
    assert counters == sorted(set(counters))
    assert [row["step"] for row in mirrored(run.rows)][-1] == 40


@pytest.mark.faults
def test_sigterm_fails_an_online_run_and_resume_goes_on_with_its_curve(
    tiny, tmp_path, server, command
):
    """SIGTERM leaves a run of W&B unfinished, or, outside of a `with`, marks it finished."""
    words = [w for w in tiny if w != "track=off"] + ["track=online", "track.artifacts=none"]
    words += ["model=bigram", "train.steps=2000", "train.log_every=100", "train.sample_every=0"]
    words += ["train.eval_every=0", "train.save_every=0", "hydra.run.dir=r"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lm.train", *words],
        env={**os.environ, "PYTHONPATH": str(Path(lm.__file__).parent.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    out, deadline = tmp_path / "r", time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() or len(points(out)) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    ((uid, run),) = server.runs.items()
    assert run.exit_code == 143
    assert mirrored(run.rows) == as_plotted(points(out)) and points(out)[-1]["step"] < 2000
    done = command("lm.train", "resume=r")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(server.runs) == [uid] and run.exit_code == 0
    assert mirrored(run.rows) == as_plotted(points(out)) and points(out)[-1]["step"] == 2000


@pytest.mark.parametrize("mode", ["error", "forbidden"])
def test_a_broken_server_means_offline_and_the_run_has_its_numbers(train, server, mode, caplog):
    server.mode = mode
    out = train("a", "track=online", IN_VAIN)
    record = json.loads((out / "wandb.json").read_text())
    assert record["mode"] == "offline"
    assert history(offline_runs()[-1]) == as_plotted(points(out))
    assert "W&B online failed" in caplog.text


def test_a_server_that_hangs_at_the_start_means_offline_and_keeps_no_step_waiting(
    tracker, server, tmp_path
):
    server.mode = "hang"
    with tracker("track=online", *QUICK[1:], IN_VAIN) as there:
        there.log(TrainState(0), {"train/loss": 1.0})
        assert not json.loads((tmp_path / "wandb.json").read_text())["path"]  # it asks still
    assert json.loads((tmp_path / "wandb.json").read_text())["mode"] == "offline"
    assert history(offline_runs()[-1]) == as_plotted(points(tmp_path))


def test_a_dead_server_means_offline(train, server):
    server.die()
    out = train("a", "track=online", IN_VAIN)
    assert json.loads((out / "wandb.json").read_text())["mode"] == "offline"
    assert history(offline_runs()[-1]) == as_plotted(points(out))


@timed
@pytest.mark.parametrize(
    "how",
    [
        "dies",
        pytest.param("hangs", marks=pytest.mark.faults),
        pytest.param("is slow", marks=pytest.mark.faults),
        pytest.param("answers errors", marks=pytest.mark.faults),
    ],
)
def test_a_server_that_fails_in_the_middle_costs_the_loop_nothing_and_the_end_its_timeout(
    tracker, server, tmp_path, caplog, how
):
    """With a server that died, each table of samples waited for 19 s."""
    state, text = TrainState(1), [{"prompt": "a", "text": "b"}]
    with tracker("track=online", "track.init_timeout=20", "track.finish_timeout=5") as there:
        wait_until_open(tmp_path)
        there.samples(TrainState(0), text)
        if how == "dies":
            server.die()
        elif how == "is slow":
            server.delay = 10
        else:
            server.mode = {"hangs": "hang", "answers errors": "error"}[how]
        begun = time.perf_counter()
        for step in range(1, 200):
            state.step = step
            there.log(state, {"train/loss": 1.0})
            if step % 40 == 0:
                there.samples(state, text)
        there.log(state, {"val/bpb": 1.0})
        assert time.perf_counter() - begun < 4
        begun = time.perf_counter()
    assert time.perf_counter() - begun < 5 + 3
    assert len(points(tmp_path)) == 200
    assert "W&B did not take all in track.finish_timeout=5 seconds: make sync" in caplog.text
    (cut_off,) = sync.waiting_runs(Path("outputs/wandb"))
    assert [row["step"] for row in history(cut_off)][-1] == 199


def test_a_run_that_goes_on_in_another_project_of_w_and_b_says_so(
    tracker, tmp_path, monkeypatch, caplog
):
    """Begun with WANDB_PROJECT and resumed without, it was said to go on, and had no points
    there."""
    client = {"id": "a", "offline": False, "dir": tmp_path / "client", "save": lambda *_, **__: 0}
    (tmp_path / "client").mkdir()
    run = SimpleNamespace(log=lambda *_, **__: 0, finish=lambda **_: None, **client)
    monkeypatch.setattr(wandb_client, "open_run", lambda *_: (run, ""))
    monkeypatch.setattr(wandb_mirror, "wandb_mode", lambda _: "online")
    said = []
    for project in ("theirs", "theirs", "lm"):
        run.url = f"https://wandb.ai/me/{project}/runs/a"
        caplog.clear()
        with tracker("track=online"):
            wait_until_open(tmp_path)
        said.append("it goes on in me/lm, and its points until now are in me/theirs" in caplog.text)
    assert said == [False, False, True]


def test_a_collection_while_w_and_b_is_open_looks_at_nothing_that_was_there_before(tracker, server):
    """The first import of the client set off one of everything, and training stood still for it:
    for 0.12 s of the processor, once in each run."""
    gc.unfreeze()
    there = [[] for _ in range(100)]
    with tracker("track=offline", "track.finish_timeout=10"):
        assert not {id(x) for x in there} & {id(x) for x in gc.get_objects()}
    assert {id(x) for x in there} <= {id(x) for x in gc.get_objects()}
    gc.freeze()


def test_a_collection_looks_at_nothing_that_the_client_made_when_it_was_opened(
    tracker, tmp_path, monkeypatch
):
    """Its import leaves so much that one more collection stopped training for 30 ms of the
    processor, and for 0.2 s where others computed too."""
    made = []
    logged = threading.Event()
    client = {"id": "a", "offline": True, "dir": tmp_path / "client", "save": lambda *_, **__: 0}
    (tmp_path / "client").mkdir()
    run = SimpleNamespace(log=lambda _: logged.set(), finish=lambda **_: None, **client)

    def open_run(*_):
        made.extend([] for _ in range(100))
        return run, ""

    monkeypatch.setattr(wandb_client, "open_run", open_run)
    with tracker("track=offline") as there:
        there.log(TrainState(1), {"val/bpb": 2.0})
        assert logged.wait(60)
        assert len(made) == 100
        assert not {id(x) for x in made} & {id(x) for x in gc.get_objects()}
    gc.freeze()


LOADED_BESIDE = """
import atexit, runpy, sys, threading
from importlib.abc import MetaPathFinder

beside = set()

class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if threading.current_thread().name.startswith("W&B"):
            beside.add(name)

sys.meta_path.insert(0, Finder())
atexit.register(lambda: print("loaded beside training:", len(beside), *sorted(beside)))
runpy.run_module("lm.train", run_name="__main__", alter_sys=True)
"""


def test_the_client_is_loaded_before_the_first_step(server, tiny, tmp_path, command):
    """While a thread loads modules a step of training waits for Python's lock a hundred times: one
    of 20 ms took 170 until W&B's client was there, with 400 modules."""
    (tmp_path / "beside.py").write_text(LOADED_BESIDE, encoding="utf-8")
    words = [word for word in tiny if word != "track=off"]
    done = command("beside", *words, "track=online", *QUICK)
    assert done.returncode == 0, done.stderr
    _, _, found = done.stdout.partition("loaded beside training: ")
    assert int(found.split()[0]) < 30, found
    assert len(server.runs) == 1


def test_the_death_of_the_client_s_own_process_is_one_warning(
    train, server, monkeypatch, caplog, tmp_path
):
    def kill_at_step_10(self, step, _step=update.Update.step, _done=[]):  # noqa: B006
        if step == 10 and not _done:
            _done.append(1)
            wait_until_open(tmp_path / "outputs/runs/a")
            children = subprocess.run(
                ["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())],
                capture_output=True,
                text=True,
            ).stdout
            for line in children.splitlines():
                if "wandb" in line or "gpu_stats" in line:
                    os.kill(int(line.split()[0]), signal.SIGKILL)
        return _step(self, step)

    good = digest(train("good", "track=off"))
    monkeypatch.setattr(update.Update, "step", kill_at_step_10)
    out = train("a", "track=online")
    assert digest(out) == good
    assert caplog.text.count("W&B stopped") == 1
    assert points(out)[-1]["step"] == 20
    assert wandb_mode.wandb_mode("online") == "online"  # for the next job of a sweep


# --------------------------------------------------------------------------- weights, bit by bit


def test_weights_and_numbers_are_the_same_with_tracking_off_offline_online_and_broken(
    train, server, monkeypatch
):
    good = train("off", "track=off")
    outs = [train("offline", "track=offline"), train("online", "track=online")]
    server.mode = "error"
    outs.append(train("error", "track=online", IN_VAIN))
    monkeypatch.setitem(sys.modules, "wandb", None)  # `import wandb` raises ImportError
    outs.append(train("missing", "track=auto"))
    for out in outs:
        assert digest(out) == digest(good), out.name
        assert numbers(points(out)) == numbers(points(good)), out.name


def test_a_broken_installation_of_wandb_is_named_once(train, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    train("a", "track=online")
    assert caplog.text.count("W&B stopped") == 1 and "wandb" in caplog.text
    caplog.clear()
    train("b", "track=off")
    assert "W&B" not in caplog.text


@pytest.mark.faults
def test_the_stop_button_of_w_and_b_saves_and_the_run_goes_on_to_the_same_end(
    server, command, tiny
):
    words = [word for word in (*tiny, *TINY_TRANSFORMER) if word != "track=off"]
    server.stop_requested = True
    words_online = (*words, *QUICK, "track=auto", "hydra.run.dir=run")
    slowly = {"LM_FAILPOINTS": "train.before_step=sleep:2"}  # the client asks every few seconds
    stopped = command("lm.train", *words_online, **slowly)
    assert stopped.returncode == 143, stopped.stdout + stopped.stderr
    assert "stopped by SIGTERM: python -m lm.train resume=run goes on" in stopped.stderr
    assert not Path("run/summary.json").exists()
    server.stop_requested = False
    assert command("lm.train", "resume=run").returncode == 0
    assert command("lm.train", *words, "track=off", "hydra.run.dir=whole").returncode == 0
    assert digest(Path("run")) == digest(Path("whole"))
    assert numbers(points(Path("run"))) == numbers(points(Path("whole")))
    (run,) = server.runs.values()
    steps = [row["step"] for row in mirrored(run.rows)]
    assert steps == sorted(steps) and steps[-1] == 20


# ------------------------------------------------------------------------------------------ sync


def test_offline_runs_reach_the_server_and_a_broken_one_stops_none(
    train, fresh_client, monkeypatch, command
):
    """`wandb sync DIR` uploads nothing at all if one run in DIR was killed at its start. The parts
    of a run that was resumed become one curve."""
    outs = [train(name, "track=offline", f"seed={name}") for name in "01"]
    (outs[1] / "summary.json").unlink()
    train("1", "track=offline", "seed=1", "train.steps=40")
    broken = Path("outputs/wandb/offline-run-20200101_000000-broken00")
    broken.mkdir()
    (broken / "run-broken00.wandb").write_bytes(b":W&B\xec\x88\x01")
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", server.key)
        whole = command("wandb", "sync", "outputs/wandb")
        assert not server.runs and "Failed to read" in whole.stdout + whole.stderr
        done = command("lm.sync")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("synced ") == 3 and done.stdout.count("skipped ") == 1
        first, second = (
            server.runs[json.loads((o / "wandb.json").read_text())["id"]] for o in outs
        )
        assert mirrored(first.rows) == as_plotted(points(outs[0]))
        counters = [row["_step"] for row in second.rows]
        assert counters == sorted(set(counters))
        assert all(row in mirrored(second.rows) for row in as_plotted(points(outs[1])))
        # The run's edge in the graph of artifacts survives the way through the file.
        assert {name.split("-")[0] for name in server.used} == {"tokenizer"}
        again = command("lm.sync")
        assert "synced " not in again.stdout, again.stdout


@pytest.mark.faults
def test_a_run_that_an_outage_cut_is_uploaded_with_the_offline_ones(
    tracker, server, monkeypatch, command, tmp_path
):
    """`wandb sync DIR` passes over runs that were online, also those whose server died."""
    with tracker("track=online", "track.init_timeout=20", "track.finish_timeout=4") as there:
        wait_until_open(tmp_path)
        there.log(TrainState(0), {"train/loss": 1.0})
        server.die()
        for step in range(1, 30):
            there.log(TrainState(step), {"train/loss": 1.0})
    with WandbServer() as again:
        monkeypatch.setenv("WANDB_BASE_URL", again.url)
        done = command("lm.sync")
        assert done.returncode == 0, done.stdout + done.stderr
        (run,) = again.runs.values()
        assert [row["step"] for row in mirrored(run.rows)] == list(range(30))
        assert not sync.waiting_runs(Path("outputs/wandb"))


@timed
@pytest.mark.faults
@pytest.mark.parametrize("how", ["is slow", "hangs from the start", "hangs later"])
def test_a_process_ends_within_its_timeout_after_its_run_and_says_once_what_is_missing(
    server, tiny, tmp_path, how
):
    """Wherever the client waits when the interpreter ends: it was 90 s, then 12 s more than allowed
    for reports of the client on itself. A server that hung from the start had two lines, which said
    that make sync would upload the run, and that it would not."""
    server.delay = 3 if how == "is slow" else 0
    server.mode = "hang" if how == "hangs from the start" else "ok"
    words = [word for word in (*tiny, *TINY_TRANSFORMER) if word != "track=off"]
    words += ["track=online", "track.finish_timeout=4", "hydra.run.dir=run"]
    process = start("lm.train", *words, stdout=subprocess.PIPE, text=True)
    if how == "hangs later":
        while "UpsertBucket" not in server.operations:  # the run's first sign
            assert process.poll() is None
            time.sleep(0.05)
        server.mode = "hang"
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("done:"):
            begun = time.monotonic()
    assert process.wait(120) == 0
    assert time.monotonic() - begun < 4 + 4  # the interpreter's end, on a busy machine
    assert sum("W&B did" in line or "W&B online" in line for line in lines) <= 1, lines


def test_a_run_of_an_agent_of_w_and_b_takes_its_id_and_no_group(train, fresh_client, monkeypatch):
    import wandb

    asked = []

    def init(**words):
        asked.append(words)
        raise wandb.Error("no more")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    train("a", "track=offline", group="day-sweep")
    assert [asked[0][key] for key in ("id", "group", "resume")] == [None, None, None]


@pytest.mark.faults
def test_an_offline_run_that_is_killed_keeps_all_but_its_last_seconds(tiny, tmp_path, command):
    """The client flushes every 15 s by itself: a kill before that left a file of 7 bytes."""
    words = [*tiny, *TINY_TRANSFORMER, "track=offline", "hydra.run.dir=out", "train.log_every=1"]
    words += ["train.steps=100000", "train.eval_every=0", "train.sample_every=0"]
    root = Path(lm.__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-m", "lm.train", *words],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "out/metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(6)
    seen = points(tmp_path / "out")[-1]["step"]
    time.sleep(3)
    process.kill()
    process.wait()
    time.sleep(1)  # the client's own process notices and ends
    assert history(offline_runs()[0])[-1]["step"] >= seen > 0
    with WandbServer() as server:  # its last record is torn
        done = command("lm.sync", WANDB_BASE_URL=server.url, WANDB_API_KEY=server.key)
        assert done.returncode == 0, done.stdout + done.stderr
        (run,) = server.runs.values()
        assert mirrored(run.rows)[-1]["step"] >= seen


def test_the_stand_in_does_not_outlive_its_test():
    assert not [t for t in threading.enumerate() if "serve_forever" in t.name and t.is_alive()]
