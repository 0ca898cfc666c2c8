"""Runs that are killed, stopped and starved end like runs that never were."""

import collections
import contextlib
import dataclasses
import faulthandler
import json
import multiprocessing
import os
import pty
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import save_file

import lm
from lm import config, train
from lm.record import checkpoint, state, wandb_names
from lm.record.run import Run
from lm.system import failpoint, files, signals, store
from lm.system.tensors import load_tensors
from tests.helpers import MODELS, TINY_TRANSFORMER, history, offline_runs, rows, timed

pytestmark = pytest.mark.faults
ROOT = Path(lm.__file__).parent.parent
SHORT = (*TINY_TRANSFORMER, "model.dropout=0.1", "train.micro_batch=2", "train.steps=40")
SHORT = (*SHORT, "train.save_every=7", "train.eval_every=10", "train.sample_every=9")
SHORT = (*SHORT, "train.log_every=4", "train.keep_last=3")


COUNTS: collections.Counter[str] = collections.Counter()


@pytest.fixture(autouse=True)
def _counted(record_property):
    """What the tests did is summed up in the last lines of the report: see conftest.py."""
    COUNTS.clear()
    yield
    for name, count in COUNTS.items():
        record_property(name, count)


def start(*words: str, **env: str) -> subprocess.Popen:
    """A training command in a process group of its own."""
    with open("stdout.txt", "a") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "lm.train", *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def child(made: config.Config, out: Path, points: str = "") -> multiprocessing.Process:
    """The same run in a fork of this process, which saves the seconds that imports take."""

    def work() -> None:
        faulthandler.disable()  # pytest's, which would print a page for a SIGBUS
        failpoint.switch_on(points)
        with signals.installed(), store.locked(out):
            try:
                train.train(made, out)
            except Exception as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                sys.exit(getattr(error, "exit_code", 1))

    out.mkdir(parents=True, exist_ok=True)
    config.save(made, out / config.RESOLVED)
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def run(made: config.Config, out: Path, points: str = "") -> int:
    """Its exit code: that of the process, or minus the signal that ended it."""
    process = child(made, out, points)
    process.join()
    COUNTS["processes killed"] += process.exitcode == -signal.SIGKILL
    COUNTS["runs stopped by a signal"] += process.exitcode in (130, 143)
    COUNTS["faults of disk, numbers and W&B"] += bool(points) and process.exitcode in (0, 3, 4)
    return process.exitcode


def same(a: Path, b: Path, step: int) -> None:
    """The two runs have the same weights, optimizer, metrics and samples, to the bit."""
    COUNTS["runs equal to an unharmed one to the bit"] += 1
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (checkpoint.folder(out, step) / name for out in (a, b))
        assert one.read_bytes() == other.read_bytes(), name
    assert rows(a) == rows(b)
    assert rows(a, "samples.jsonl") == rows(b, "samples.jsonl")
    assert not list(a.rglob("*.tmp"))
    left, right = (json.loads((out / "summary.json").read_text()) for out in (a, b))
    assert {**left, "seconds": 0} == {**right, "seconds": 0}


@pytest.fixture
def whole(cfg, tiny, tmp_path):
    """A short run that nothing happened to, and its settings."""
    made = cfg(*tiny, *SHORT)
    assert run(made, tmp_path / "whole") == 0
    return made, tmp_path / "whole"


# ------------------------------------------------------------------------------------- kill -9


def test_a_command_killed_at_random_moments_ends_like_one_that_never_stopped(tiny):
    words = (*tiny, *SHORT, "train.steps=300", "train.eval_every=25")
    began = time.monotonic()
    assert start(*words, "hydra.run.dir=whole").wait() == 0
    whole_takes = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(5):
        process = start(*words, "hydra.run.dir=killed")
        time.sleep(moments.uniform(0, whole_takes))
        process.send_signal(signal.SIGKILL)
        COUNTS["processes killed"] += process.wait() == -signal.SIGKILL
    assert start(*words, "hydra.run.dir=killed").wait() == 0
    same(Path("killed"), Path("whole"), 300)


@pytest.mark.parametrize("case", MODELS)
def test_twenty_kills_at_random_moments_change_no_bit_of_any_model(case, cfg, tiny, tmp_path):
    words = ("train.steps=80", "train.save_every=7", "train.eval_every=10", "train.log_every=4")
    made = cfg(*tiny, *MODELS[case], *words)
    began = time.monotonic()
    assert run(made, tmp_path / "whole") == 0
    takes = time.monotonic() - began
    moments = random.Random(case)
    out, kills, ended = tmp_path / "killed", 0, False
    while kills < 20 or not ended:  # the 20th may come when summary.json is written already
        process = child(made, out)
        process.join(moments.uniform(0, 0.6 * takes) if kills < 20 else None)
        if process.is_alive():
            process.kill()
            kills += 1
            COUNTS["processes killed"] += 1
        process.join()
        ended = process.exitcode == 0
        if ended:
            assert (out / "summary.json").exists()
            same(out, tmp_path / "whole", 80)
            if kills < 20:
                shutil.rmtree(out)


SAVING = [p for p in failpoint.POINTS if p.startswith("ckpt.")]
WORKING = ["train.forward", "train.before_step", "train.after_step", "eval.mid", "sample.mid"]


@pytest.mark.parametrize("point", [*SAVING, *WORKING, "track.write"])
def test_a_kill_at_a_named_point_changes_no_bit(point, whole, tmp_path):
    made, unharmed = whole
    assert run(made, tmp_path / "killed", f"{point}=kill@3") == -signal.SIGKILL
    assert run(made, tmp_path / "killed") == 0
    same(tmp_path / "killed", unharmed, 40)


@pytest.mark.parametrize("point", ["cache.mid", "cache.after_files", "cache.after_manifest",
                                   "cache.after_rename"])  # fmt: skip
@pytest.mark.parametrize("action", ["kill", "term"])
def test_a_cache_whose_builder_dies_is_built_again(point, action, cfg, tiny, tmp_path):
    made = cfg(*tiny, *SHORT)
    code = {"kill": -signal.SIGKILL, "term": 143}[action]
    assert run(made, tmp_path / "a", f"{point}={action}") == code
    if action == "term":
        assert not list(Path("outputs/cache").rglob("*.tmp"))
    assert run(made, tmp_path / "a") == 0
    assert run(made, tmp_path / "b") == 0
    same(tmp_path / "a", tmp_path / "b", 40)
    assert len(list(Path("outputs/cache").glob("tokens-*"))) == 1
    assert not list(Path("outputs/cache").rglob("*.tmp"))


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_run_whose_newest_checkpoint_is_damaged_ends_like_one_that_was_not(name, whole, tmp_path):
    made, unharmed = whole
    out = tmp_path / "damaged"
    assert run(made, out, "train.after_step=kill@33") == -signal.SIGKILL
    newest = checkpoint.folder(out, checkpoint.steps(out)[-1])
    zeros(newest / name)
    assert run(made, out) == 0
    assert (out / "checkpoints" / f"damaged_{newest.name}").is_dir()
    same(out, unharmed, 40)


def test_a_run_without_an_intact_checkpoint_is_exit_code_5_and_does_not_begin_again(
    whole, tmp_path, capfd
):
    made, _ = whole
    out = tmp_path / "damaged"
    assert run(made, out, "train.after_step=kill@33") == -signal.SIGKILL
    for step in checkpoint.steps(out):
        zeros(checkpoint.folder(out, step) / "model.safetensors")
    logged = (out / "metrics.jsonl").read_bytes()
    for _ in range(2):
        assert run(made, out) == 5
        assert f"start a new run, or delete {out / 'checkpoints'}" in capfd.readouterr().err
    assert (out / "metrics.jsonl").read_bytes() == logged


def test_tokens_cut_while_a_run_reads_them_end_it_and_the_next_start_mends_both(whole, tmp_path):
    """The system ends a process whose mapped file is cut (SIGBUS); nothing in Python can."""
    made, unharmed = whole
    process = child(made, tmp_path / "cut", "train.before_step=sleep:0.02")
    wait_for("cut/checkpoints/step_000007")
    (tokens,) = Path("outputs/cache").glob("tokens-*/train.bin")
    os.truncate(tokens, 0)
    process.join()
    assert process.exitcode == -signal.SIGBUS
    assert run(made, tmp_path / "cut") == 0
    same(tmp_path / "cut", unharmed, 40)


# What a checkpoint holds of a run, and another value for each: 1000 for the clock, else nothing.
STATE = {f.name: f for f in dataclasses.fields(state.TrainState)}
LOST = [*STATE, "weights", "optimizer"]
HARD = (*TINY_TRANSFORMER, "train.steps=40", "train.save_every=7", "train.eval_every=10")
HARD = (*HARD, "train.log_every=4", "train.micro_batch=auto", "train.rollbacks=2")
HARD = (*HARD, "schedule=constant", "optimizer.lr=3.0")  # the first one is the best
# What happened before the checkpoint, what happens after it, and steps: a step is left out, a loss
# jumps; but some parts matter only in a rollback, or behind a run's end. The numbers are batches'.
BEFORE = "train.grad=nan@9,train.loss=nan@17-20,train.forward=memory@5,train.after_step=term@37"
STORM = (BEFORE, "train.grad=nan@40-43", 40)
MATTERS = {"rollbacks": STORM, "good_step": STORM}
MATTERS["bad_in_a_row"] = ("train.loss=nan@38-39", "train.loss=nan@40-41", 45)
CALM = (BEFORE, "train.grad=nan@41,train.loss=x100@39", 40)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder for the runs that the following go on with, and what they come to."""
    return tmp_path_factory.mktemp("stopped")


@pytest.mark.parametrize("what", LOST)
def test_nothing_is_in_a_checkpoint_that_its_run_can_do_without(what, cfg, tiny, stopped, tmp_path):
    """Each part lost in turn: the run ends otherwise, or is refused."""
    before, after, steps = MATTERS.get(what, CALM)
    first, whole = stopped / after, stopped / f"{after} whole"
    made = cfg(*tiny, *HARD, f"train.steps={steps}")
    if not whole.exists():
        assert run(cfg(*tiny, *HARD), first, before) in (0, 143)
        (first / "summary.json").unlink(missing_ok=True)
        shutil.copytree(first, whole)
        assert run(made, whole, after) == 0
    out = tmp_path / "run"
    shutil.copytree(first, out)
    lost(what, checkpoint.folder(out, checkpoint.steps(out)[-1]))
    code = run(made, out, after)
    assert code in (0, 1, 3) and (code or outcome(out) != outcome(whole))


def lost(what: str, folder: Path) -> None:
    """Seal a checkpoint again without a part of it."""
    if what in STATE:
        saved = json.loads((folder / "state.json").read_text())
        fresh = {"seconds": 1000.0}.get(what, getattr(state.TrainState(), what))
        assert saved["state"][what] != fresh, f"{what} is {fresh} in this test: it shows nothing"
        saved["state"][what] = fresh
        (folder / "state.json").write_text(json.dumps(saved))
    else:
        path = folder / f"{'model' if what == 'weights' else what}.safetensors"
        tensors = load_tensors(path)
        name = next(iter(tensors))
        tensors = {k: t for k, t in tensors.items() if what == "weights" or k[:4] != name[:4]}
        if what == "weights":
            tensors[name].zero_()
        save_file(tensors, path)
    (folder / store.MANIFEST).unlink()
    store.seal(folder)


def outcome(out: Path) -> list:
    """All that a run left behind, but the clock to the second."""
    weights = checkpoint.folder(out, checkpoint.steps(out)[-1]) / "model.safetensors"
    summary = out / "summary.json"
    told = json.loads(summary.read_text()) if summary.exists() else {"seconds": 0}
    damaged = [p.name for p in (out / "checkpoints").glob("damaged_*")]
    told["seconds"] //= 500
    return [rows(out), rows(out, "samples.jsonl"), told, damaged, files.sha256(weights)]


# ------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("point", [*WORKING, "ckpt.mid_write", "ckpt.after_rename", "track.write"])
def test_a_stop_at_any_moment_saves_the_exact_step_and_changes_no_bit(point, whole, tmp_path):
    made, unharmed = whole
    out = tmp_path / "stopped"
    assert run(made, out, f"{point}=term@5") == 143
    state = json.loads(
        (checkpoint.folder(out, checkpoint.steps(out)[-1]) / "state.json").read_text()
    )
    logged = [row["step"] for row in rows(out)]
    assert state["state"]["step"] >= max(logged)
    assert run(made, out) == 0
    same(out, unharmed, 40)


def test_a_run_stopped_at_every_fourth_step_ends_like_one_that_was_not(whole, tmp_path):
    made, unharmed = whole
    for step in range(1, 38, 4):
        assert run(made, tmp_path / "stopped", f"train.loss=term@{step}") == 143
        assert step + 1 in checkpoint.steps(tmp_path / "stopped")
    assert run(made, tmp_path / "stopped") == 0
    same(tmp_path / "stopped", unharmed, 40)


def wait_for(path: str) -> None:
    deadline = time.monotonic() + 60
    while not list(Path().glob(path)):
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.01)


LONG = (*TINY_TRANSFORMER, "train.steps=1500", "train.save_every=50", "train.eval_every=100")


@timed
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_stops_at_a_signal_to_its_group_in_one_line_and_goes_on(
    number, code, tiny, tmp_path
):
    words = (*tiny, *LONG, "track=offline", "hydra.run.dir=run")
    process = start(*words)
    wait_for("run/checkpoints/step_000050")
    os.killpg(process.pid, number)
    began = time.monotonic()
    assert process.wait() == code
    assert time.monotonic() - began < 10
    said = Path("stdout.txt").read_text()
    assert "Traceback" not in said and "W&B stopped" not in said
    assert (
        f"stopped by {signal.Signals(number).name}: python -m lm.train resume=run goes on" in said
    )
    stopped_at = checkpoint.steps(Path("run"))[-1]
    assert rows(Path("run"))[-1]["step"] <= stopped_at
    assert start(*words, "track=offline").wait() == 0
    assert start(*tiny, *LONG, "track=off", "hydra.run.dir=whole").wait() == 0
    same(Path("run"), Path("whole"), 1500)


@timed
def test_a_second_signal_ends_it_then_and_there(tiny):
    words = (*tiny, *LONG, "train.steps=200", "hydra.run.dir=run")
    process = start(*words, LM_FAILPOINTS="ckpt.mid_write=sleep:30@3")
    wait_for("run/checkpoints/.step*.tmp/model.safetensors")
    while len(checkpoint.steps(Path("run"))) < 2:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait() == 143
    assert time.monotonic() - began < 2
    store.verify(checkpoint.folder(Path("run"), checkpoint.steps(Path("run"))[-1]))
    assert start(*words).wait() == 0
    assert start(*words, "hydra.run.dir=whole").wait() == 0
    same(Path("run"), Path("whole"), 200)


@pytest.mark.parametrize("how", ["closed", "closed under nohup"])
def test_a_run_whose_terminal_is_closed_saves_its_exact_step_or_goes_on_under_nohup(how, tiny):
    """Closing a window, or losing an ssh connection, sends SIGHUP and makes each print an error."""
    nohup = how != "closed"
    words = (*tiny, *LONG, "train.save_every=0", "train.steps=100000", "hydra.run.dir=run")
    words = (*words, "train.steps=600") if nohup else words
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = str(ROOT)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
        line = [*["nohup"] * nohup, sys.executable, "-m", "lm.train", *words]
        os.execvp(line[0], line)
    reader = threading.Thread(target=read_to_the_end, args=(terminal,), daemon=True)
    reader.start()
    wait_for("run/checkpoints/step_000000")
    os.close(terminal)
    os.kill(pid, signal.SIGHUP)  # a shell sends a second one
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    COUNTS["runs stopped by a signal"] += code == 129
    assert code == (0 if nohup else 129)
    last = checkpoint.steps(Path("run"))[-1]
    assert last == 600 if nohup else last >= rows(Path("run"))[-1]["step"]


def read_to_the_end(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass


def test_sigusr1_saves_and_changes_nothing_else(whole, tmp_path):
    made, unharmed = whole
    out = tmp_path / "saved"
    process = child(made, out, "train.before_step=sleep:0.02")
    while not (out / "metrics.jsonl").exists():
        time.sleep(0.01)
    extra = set()
    while process.is_alive():
        os.kill(process.pid, signal.SIGUSR1)
        time.sleep(0.05)
        extra |= {s for s in checkpoint.steps(out) if s % 7 and s % 10}
    assert process.exitcode == 0
    assert len(extra) > 3
    same(out, unharmed, 40)


PHASES = {  # what is there when it has begun, and where it then waits for the signal
    "start-up": ("run", ""),
    "training the tokenizer": ("outputs/cache/.tokenizers-*.tmp", "cache.mid=sleep:60@1"),
    "tokenizing": ("outputs/cache/.tokens-*.tmp", "cache.mid=sleep:60@2"),
    "compiling": ("run/code.json", ""),  # which takes ten seconds by itself
}


@timed
@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_before_training_leaves_nothing_half_made(phase, tiny):
    sign, points = PHASES[phase]
    words = (*tiny, *LONG, "train.steps=20", "hydra.run.dir=run")
    words = (*words, "train.compile=on") if phase == "compiling" else words
    process = start(*words, LM_FAILPOINTS=points)
    wait_for(sign)
    if phase != "start-up":  # which is short
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGTERM)
    began = time.monotonic()
    assert process.wait() == 143, Path("stdout.txt").read_text()
    assert time.monotonic() - began < 10
    assert "Traceback" not in Path("stdout.txt").read_text()
    assert not list(Path("outputs/cache").rglob("*.tmp"))
    assert not Path("run/metrics.jsonl").exists()
    if phase != "start-up":
        assert start(*words, "train.compile=off").wait() in (0, 2)


def test_a_sweep_stops_after_saving_its_job_and_the_same_command_completes_it(tiny):
    words = ("-m", "seed=0,1,2", *tiny, *LONG, "train.steps=300", "hydra.sweep.dir=sweep")
    process = start(*words)
    wait_for("sweep/1/checkpoints/step_000050")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 143
    assert not Path("sweep/2").exists()
    assert "hydra.sweep.dir=sweep goes on" in Path("stdout.txt").read_text()
    done = Path("sweep/0/summary.json").stat().st_mtime_ns
    assert start(*words).wait() == 0
    assert Path("sweep/0/summary.json").stat().st_mtime_ns == done
    assert len(list(Path("sweep").glob("*/summary.json"))) == 3
    assert start(*tiny, *LONG, "train.steps=300", "seed=1", "hydra.run.dir=whole").wait() == 0
    same(Path("sweep/1"), Path("whole"), 300)


# ------------------------------------------------------------------------------------- storage


@pytest.mark.parametrize("points", [
    "ckpt.mid_write=enospc@3", "ckpt.begin=erofs@2-4", "ckpt.after_files=edquot@2",
    "ckpt.after_manifest=eio@4", "track.write=enospc@4-9", "ckpt.mid_write=enospc@1",
])  # fmt: skip
def test_a_disk_that_is_full_for_a_while_changes_no_bit(points, whole, tmp_path, capfd):
    made, unharmed = whole
    assert run(made, tmp_path / "full", points) == 0
    same(tmp_path / "full", unharmed, 40)
    for step in checkpoint.steps(tmp_path / "full"):
        store.verify(checkpoint.folder(tmp_path / "full", step))


def test_a_last_save_that_fails_is_exit_code_4_and_the_next_start_mends_it(whole, tmp_path, capfd):
    made, unharmed = whole
    assert run(made, tmp_path / "full", "ckpt.mid_write=enospc@4-99") == 4
    assert re.search(r"it needs [\d,]+ bytes, and [\d,]+ are free", capfd.readouterr().err)
    assert not (tmp_path / "full/summary.json").exists()
    store.verify(checkpoint.folder(tmp_path / "full", checkpoint.steps(tmp_path / "full")[-1]))
    assert run(made, tmp_path / "full") == 0
    same(tmp_path / "full", unharmed, 40)


def test_lines_that_the_disk_refused_are_not_lost_with_the_process(whole, tmp_path):
    """A checkpoint was written while lines before it were in memory alone: a kill lost them."""
    made, unharmed = whole
    points = "track.write=enospc@4-99,train.after_step=kill@33"
    assert run(made, tmp_path / "full", points) == -signal.SIGKILL
    assert checkpoint.steps(tmp_path / "full") == [0]
    assert run(made, tmp_path / "full") == 0
    same(tmp_path / "full", unharmed, 40)


def test_a_disk_that_is_full_while_tokens_are_packed_is_told_and_leaves_nothing_half_made(tiny):
    words = (*tiny, *SHORT, "hydra.run.dir=run")
    limit = f"ulimit -f 50 && exec {sys.executable} -m lm.train " + " ".join(words)  # kilobytes
    done = subprocess.run(
        ["bash", "-c", limit], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 4
    assert re.fullmatch(
        r"error: \[Errno 27\] File too large: '\S*/tokens-\w+': make room, or set LM_CACHE_DIR "
        r"to a folder on another disk\n",
        done.stderr,
    )
    assert not list(Path("outputs/cache").rglob("*.tmp"))
    assert start(*words).wait() == 0


def test_an_unlucky_place_costs_a_run_nothing(tiny, tmp_path, monkeypatch):
    """A folder of odd name behind a link, no home, no locale, and nowhere to print to."""
    place = tmp_path / "d\u00e9j\u00e0 [1] *'\n="
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    monkeypatch.chdir(tmp_path / "link")
    (tmp_path / "file").touch()
    for name in ("HOME", "XDG_CACHE_HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "file"))  # no folder can be made in it
    monkeypatch.delenv("WANDB_DIR")
    words = (*tiny, *SHORT, "track=offline", 'train.prompts=["\u00e9"]', "hydra.run.dir='a b%j'")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C"}
    told = {}
    for where, redirect in {"full": ">/dev/full", "closed": ">&-"}.items():
        quoted = " ".join(map(shlex.quote, (*words, f"name={where}", f"hydra.run.dir={where}")))
        command = f"exec {sys.executable} -m lm.train {quoted} {redirect}"
        done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told[where] = done.stderr
        assert Path(where, "summary.json").exists()
    assert "Traceback" not in told["full"] + told["closed"]
    assert rows(Path("full")) == rows(Path("closed"))
    words = [sys.executable, "-m", "lm.sample", "run=closed", "prompt=\u00e9", "max_tokens=3"]
    done = subprocess.run(words, env=env, capture_output=True)
    assert done.returncode == 0 and done.stdout.startswith("\u00e9".encode())


def test_a_quota_keeps_the_last_good_checkpoint(tiny):
    """RLIMIT_FSIZE refuses a write like a full disk does, by the system and not by a failpoint."""
    words = (*tiny, *SHORT, "hydra.run.dir=run")
    assert start(*words, "train.steps=10", "hydra.run.dir=whole").wait() == 0
    size = (checkpoint.folder(Path("whole"), 10) / "model.safetensors").stat().st_size
    process = start(*words)
    wait_for("run/checkpoints/step_000007")
    limit = size // 2
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    assert process.wait() == 4
    last = checkpoint.steps(Path("run"))[-1]
    store.verify(checkpoint.folder(Path("run"), last))
    assert 7 <= last < 40
    assert "training goes on" in Path("stdout.txt").read_text()
    assert start(*words).wait() == 0


# --------------------------------------------------------------------------------- bad numbers


def finite(out: Path) -> None:
    for step in checkpoint.steps(out):
        for name in ("model.safetensors", "optimizer.safetensors"):
            tensors = load_tensors(checkpoint.folder(out, step) / name)
            assert all(t.isfinite().all() for t in tensors.values())


@pytest.mark.parametrize("points", [
    "train.loss=nan@17", "train.grad=inf@17", "train.grad=nan@17-19", "train.loss=nan@0-1",
    "train.loss=nan@39", "train.loss=nan@17-20", "train.grad=inf@1-4", "train.loss=x100@30",
])  # fmt: skip
def test_bad_numbers_are_left_out_and_a_run_stopped_amid_them_ends_the_same(
    points, cfg, tiny, tmp_path
):
    made = cfg(*tiny, *SHORT)
    assert run(made, tmp_path / "whole", points) == 0
    finite(tmp_path / "whole")
    odd = [r for r in rows(tmp_path / "whole") if {"train/skipped", "train/spike"} & r.keys()]
    assert odd
    for step in (1, 15, 18, 19, 20, 31, 39):
        stop = "train.after_step=term"
        assert run(made, tmp_path / "stopped", f"{points},{stop}@{step}") in (0, 143)
        finite(tmp_path / "stopped")
    for step in (3, 9):
        assert run(made, tmp_path / "stopped", f"{points},train.forward=kill@{step}") in (0, -9)
    assert run(made, tmp_path / "stopped", points) == 0
    same(tmp_path / "stopped", tmp_path / "whole", 40)


def test_bad_numbers_without_end_go_back_once_and_stop_with_exit_code_3(cfg, tiny, tmp_path, capfd):
    made = cfg(*tiny, *SHORT)
    assert run(made, tmp_path / "bad", "train.loss=nan@17-99") == 3
    said = capfd.readouterr().err
    assert "step 17: the loss is nan" in said and "1 rollbacks did not help" in said
    finite(tmp_path / "bad")
    assert not (tmp_path / "bad/summary.json").exists()


def test_weights_that_overflow_are_never_saved(cfg, tiny, tmp_path):
    made = cfg(*tiny, *SHORT, "optimizer.lr=1e30", "train.save_every=1", "schedule=constant")
    assert run(made, tmp_path / "bad") == 3
    assert checkpoint.steps(tmp_path / "bad")
    finite(tmp_path / "bad")


# ----------------------------------------------------------------------------------------- W&B


@pytest.mark.parametrize("points", ["wandb.init=raise", "wandb.log=raise@3", "wandb.finish=raise",
                                    "wandb.log=sleep:0.1@2-5"])  # fmt: skip
def test_what_fails_in_wandb_changes_no_bit(points, whole, cfg, tiny, tmp_path):
    made = cfg(*tiny, *SHORT, "track=offline")
    assert run(made, tmp_path / "run", points) == 0
    same(tmp_path / "run", whole[1], 40)


def test_a_run_stopped_before_its_last_evaluation_knows_its_best_checkpoint(cfg, tiny, tmp_path):
    made, out = cfg(*tiny, *SHORT), tmp_path / "run"
    assert run(made, out, "train.after_step=term@40") == 143
    assert run(made, out) == 0
    best = files.read_json(out / "summary.json")["best_step"]
    assert best == 40 and Run.open(str(out)).checkpoint("best") == checkpoint.folder(out, best)


@pytest.mark.parametrize("point", ["wandb.init", "wandb.log", "wandb.finish"])
@pytest.mark.parametrize("action", ["kill", "term"])
def test_a_stop_or_kill_inside_wandb_loses_nothing(point, action, whole, cfg, tiny, tmp_path):
    made = cfg(*tiny, *SHORT, "track=offline")
    code = {"kill": -signal.SIGKILL, "term": 143}[action]
    visit = 5 if point == "wandb.log" else 1
    assert run(made, tmp_path / "run", f"{point}={action}@{visit}") == code
    if not (tmp_path / "run/summary.json").exists():
        assert run(made, tmp_path / "run") == 0
    same(tmp_path / "run", whole[1], 40)


def test_the_curve_in_wandb_of_a_killed_run_is_that_of_its_files(cfg, tiny, tmp_path):
    made = cfg(*tiny, *SHORT, "track=offline")
    for step in (8, 17, 33):
        assert run(made, tmp_path / "run", f"train.loss=kill@{step}") == -signal.SIGKILL
    assert run(made, tmp_path / "run") == 0
    curve = {}
    # A start that was killed while W&B opened its run left an empty folder.
    opened = [folder for folder in offline_runs() if list(folder.glob("*.wandb"))]
    for folder in sorted(opened, key=lambda f: f.stat().st_mtime):
        for row in history(folder):
            for key, value in row.items():
                curve[row["step"], key] = value
    written = [
        json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().split("\n")[:-1]
    ]
    for row in written:
        plotted, _ = wandb_names.split(row)
        for key, value in plotted.items():
            if key not in ("train_seconds", "speed/tokens_per_s"):
                assert curve[row["step"], key] == value


# ------------------------------------------------------------------------------- the calls made


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_checkpoint_is_synced_before_it_is_published_and_its_name_after(tiny):
    """Power loss at any moment: the order of the system's calls is what keeps a save whole."""
    words = (*tiny, *TINY_TRANSFORMER, "train.steps=1", "train.eval_every=0", "hydra.run.dir=run")
    calls = "openat,open,fsync,fdatasync,rename,renameat,renameat2"
    subprocess.run(
        ["strace", "-f", "-y", "-o", "trace", "-e", f"trace={calls}", sys.executable, "-m",
         "lm.train", *words], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seen = []
    for line in Path("trace").read_text().splitlines():
        if found := re.search(r"fsync\(\d+<(.*?)>\)", line):
            name = os.path.basename(found[1])
            if "metrics" in name or name == "checkpoints" or ".step_000001." in found[1]:
                seen.append("sync folder" if name.startswith(".step") else f"sync {name[:12]}")
        elif "rename" in line and "step_000001" in line and "safetensors" not in line:
            seen.append("name " + os.path.basename(re.findall(r'"(.*?)"', line)[1]))
    seen = seen[len(seen) - 1 - seen[::-1].index("sync metrics.json", 1) :]
    files = ["model.safete", "optimizer.sa", "state.json", ".manifest.js"]
    assert seen == [
        *("sync metrics.json", *(f"sync {name}" for name in files)),
        *("name manifest.json", "sync folder", "name step_000001", "sync checkpoints"),
        "sync metrics.json",  # at the end of the run
    ], seen


def test_every_failpoint_is_used_by_a_test():
    text = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parents[1].rglob("*.py"))
    source = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "lm").rglob("*.py"))
    for point in failpoint.POINTS:
        place = point.partition(".")[2]
        assert f'"{point}' in text or f"{point}=" in text or point in SAVING, point
        assert f'hit("{point}"' in source or f'hit(f"{{kind}}.{place}")' in source, point


# ------------------------------------------------------------------------------------ resources


def test_memory_that_runs_out_is_one_line_with_what_would_fit(tiny):
    """RLIMIT_AS refuses the allocation as a machine without memory does."""
    words = (*tiny, *TINY_TRANSFORMER, "train.batch_size=512", "model.context_len=512")
    process = start(*words, "hydra.run.dir=run", "train.eval_every=0", "train.save_every=1")
    wait_for("run/checkpoints/step_000000")
    used = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(process.pid, resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    assert process.wait() == 1
    said = Path("stdout.txt").read_text()
    assert "Traceback" not in said
    assert "error: out of memory at step" in said and "train.micro_batch=256 takes less" in said


def with_children(pid: int) -> list[Path]:
    """The /proc folders of a process and of all that it started, and that these started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(path)
    found = [Path(f"/proc/{pid}")]
    for path in found:
        found += parents.get(int(path.name), [])
    return found


STEPS = int(os.environ.get("LM_SOAK_STEPS", 100_000))


def test_a_hundred_thousand_steps_keep_memory_and_open_files_flat(tiny, record_property):
    """Of the run's process and of those of W&B, which it starts."""
    every = {"save": 200, "sample": 100, "eval": 20}
    words = [f"train.{what}_every={STEPS // times}" for what, times in every.items()]
    words = (*tiny, "model=bigram", f"train.steps={STEPS}", "track=offline", *words)
    process = start(*words, "hydra.run.dir=run")
    seen = []
    while process.poll() is None:
        with contextlib.suppress(OSError, IndexError, ValueError):
            step = json.loads(Path("run/metrics.jsonl").read_text()[-400:].split("\n")[-2])["step"]
            there = with_children(process.pid)
            pages = [int((p / "statm").read_text().split()[1]) for p in there]
            memory = [n * resource.getpagesize() >> 20 for n in (pages[0], sum(pages))]
            files = len(os.listdir(there[0] / "fd"))
            seen.append((step / STEPS, *memory, files))
        time.sleep(1)
    assert process.returncode == 0
    early = [row[1:] for row in seen if 0.1 < row[0] < 0.3]
    late = [row[1:] for row in seen if 0.8 < row[0] < 1]  # at the end the doctor looks at it
    first, last = (list(map(max, zip(*part, strict=True))) for part in (early, late))
    for most, part in ((first, early), (last, late)):  # a checkpoint that is written is open too
        most[2] = min(row[2] for row in part)
    told = "{} MB ({} with W&B's process) and {} open files"
    record_property(
        "soak", f"{told.format(*first)} up to step {0.3 * STEPS:,.0f}, "
        f"{told.format(*last)} up to step {STEPS:,}"
    )  # fmt: skip
    assert last[0] < 1.02 * first[0] + 4
    assert last[1] < 1.1 * first[1]  # W&B's is not ours to keep flat, but to bound
    assert last[2] <= first[2]
