"""The commands as a person types them: train, kill, resume, sample, evaluate, sweep."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch

import lm
from lm import config, tokenizers
from lm.record import checkpoint
from lm.record.find import find_run
from lm.record.run import Run
from lm.system import files
from tests.helpers import TINY_TRANSFORMER, rows

WORDS = (*TINY_TRANSFORMER, "hydra.run.dir=run")


@pytest.mark.slow
def test_one_command_trains_and_the_others_read_its_run(command, tiny, tmp_path):
    trained = command("lm.train", *tiny, *TINY_TRANSFORMER)
    assert trained.returncode == 0, trained.stderr
    for part in (
        "built in",
        "step     20",
        "val loss",
        "ppl",
        "bpb",
        "tok/s",
        "done: best val/bpb",
    ):
        assert part in trained.stdout
    (run,) = (tmp_path / "outputs/runs").glob("*/*")
    assert {"config.resolved.yaml", ".hydra", "train.log", "summary.json"} <= set(os.listdir(run))

    again = command("lm.train", *tiny, *TINY_TRANSFORMER)
    assert again.stdout.count("reused") == 3
    assert len(list((tmp_path / "outputs/runs").glob("*/*"))) == 2

    said = command("lm.sample", f"run={run}", "prompt=12 plus", "max_tokens=20", "n=2", "seed=3")
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("12 plus") == 2
    assert (
        said.stdout
        == command(
            "lm.sample", f"run={run}", "prompt=12 plus", "max_tokens=20", "n=2", "seed=3"
        ).stdout
    )

    score = command("lm.evaluate", f"run={run}")
    summary = json.loads((run / "summary.json").read_text())
    assert f"bits/byte   {summary['best_val_bpb']:.4f}" in score.stdout, score.stderr
    (tmp_path / "other.txt").write_text("5 plus 5 is 10, said the cat.\n" * 30)
    other = command("lm.evaluate", f"run={run}", "corpus=other.txt", "split=train")
    assert "other.txt train" in other.stdout, other.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_any_moment_it_goes_on_to_the_same_end(command, tiny, tmp_path, name):
    words = (*tiny, *TINY_TRANSFORMER, "train.steps=200", "train.save_every=50")
    whole = command("lm.train", *words, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    root = Path(lm.__file__).parent.parent
    child = subprocess.Popen(
        [sys.executable, "-m", "lm.train", *words],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(Path("outputs").glob("runs/*/*/checkpoints/step_000050")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(name)
    assert child.wait() != 0
    (run,) = Path("outputs/runs").glob("*/*")
    assert not (run / "summary.json").exists()
    resumed = command("lm.train", "resume=latest")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed from step_000" in resumed.stdout
    assert rows(run) == rows(Path("whole"))
    a, b = (checkpoint.folder(out, 200) / "model.safetensors" for out in (run, Path("whole")))
    assert a.read_bytes() == b.read_bytes()
    before = {p: files.sha256(p) for p in Path("whole").rglob("*") if p.is_file()}
    again = command("lm.train", *words, "hydra.run.dir=whole")
    assert again.returncode == 0 and "already complete at step 200" in again.stdout, again.stderr
    told = {"train.log", ".running", "hydra.yaml"}
    assert {p.name for p in before if files.sha256(p) != before[p]} <= told


@pytest.mark.slow
def test_a_finished_run_can_be_given_more_steps(command, tiny, tmp_path):
    command("lm.train", *tiny, *WORDS)
    more = command("lm.train", "resume=run", "train.steps=30")
    assert more.returncode == 0, more.stderr
    assert json.loads(Path("run/summary.json").read_text())["step"] == 30
    code = json.loads(Path("run/code.json").read_text())
    assert (code["extended"], code["exact_resume"]) == ([20], False)
    less = command("lm.train", "resume=run", "train.steps=25")
    assert less.returncode == 2 and "train.steps=25 ends before step 30" in less.stderr
    assert json.loads(Path("run/summary.json").read_text())["step"] == 30


BAD = {
    "lm.train +model.n_layr=3": "did you mean model.n_layer?",
    "lm.train resume=latest model=gru": "and nothing else, not model=gru",
    "lm.train resume=latest --cfg": "takes single settings, such as train.steps=3000",
    "lm.train resume=latest": "no run under outputs/",
    "lm.train resume=nowhere": "there is no run directory 'nowhere'",
    "lm.train corpus=files corpus.path=nowhere.txt track=off": "nowhere.txt",
    "lm.train TINY train.device=cuda": "train.device=cuda is not available",
    "lm.train TINY model.context_len=100000": "one window needs 100001: lower model.context_len",
    "lm.train TINY tokenizer=bpe tokenizer.pattern=( ": "tokenizer",
    "lm.train TINY hydra.run.dir=/dev/null/run": "choose another hydra.run.dir=",
    "lm.train -m TINY hydra.sweep.dir=/dev/null/s": "choose another hydra.sweep.dir=",
    "lm.sample run=nowhere": "there is no run directory",
    "lm.sample promt=x": "did you mean prompt?",
    "lm.sample hello": "hello is not key=value",
    "lm.sample temperature=-1": "temperature=-1.0: must be at least 0",
    "lm.sample top_p=2": "top_p=2.0: must be from",
    "lm.evaluate split=test": "split=test: choose val or train",
}


@pytest.mark.parametrize("words", BAD)
def test_what_cannot_be_is_told_in_one_line_with_exit_code_2(
    words, tiny, monkeypatch, capsys, tmp_path
):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("this machine has the device")
    module, *rest = words.split()
    rest = [w for word in rest for w in (tiny if word == "TINY" else [word])]
    monkeypatch.setattr(sys, "argv", [module, *rest])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(module, run_name="__main__")
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert BAD[words] in error
    assert not list(tmp_path.glob("outputs/runs/*/*"))  # nothing half-written, and no new `latest`


def test_a_sweep_in_place_of_a_run_is_told_apart(tmp_path):
    (tmp_path / "s/3").mkdir(parents=True)
    (tmp_path / "s/3" / config.RESOLVED).touch()
    with pytest.raises(ValueError, match="s is a sweep: choose one of its arms, such as run=s/3"):
        find_run("s")
    (tmp_path / "s" / config.RESOLVED).touch()  # a run that others were made in
    assert find_run("s") == Path("s")
    with pytest.raises(ValueError, match="tests is not a run directory"):
        find_run(str(Path(__file__).parent))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["lm.train", "lm.sample", "lm.lens", "lm.report"])
@pytest.mark.parametrize("loaded", ["lm.system.errors", "omegaconf"])
def test_ctrl_c_while_a_command_loads_ends_it_without_a_word(module, loaded):
    words = [sys.executable, "-X", "importtime", "-m", module]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:  # one for each import that is done
        if line.split()[-1] == loaded:
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert "Traceback" not in error
    # On a machine that is busy it may have come to its own handling of Ctrl-C, or to its end.
    assert process.returncode in (-signal.SIGINT, 130, 2)


def test_ctrl_c_of_a_script_leaves_alone_what_it_started_with_an_ampersand(tiny):
    words = [sys.executable, "-m", "lm.train", *tiny, *WORDS, "train.steps=60"]
    process = subprocess.Popen(["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *words])
    while not Path("run/metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0 and json.loads(Path("run/summary.json").read_text())["step"] == 60


def test_a_damaged_summary_keeps_no_checkpoint_from_being_read(trained):
    out = trained(*TINY_TRANSFORMER)
    best = Run.open(str(out)).checkpoint("best")
    (out / "summary.json").write_text("{")
    assert Run.open(str(out)).checkpoint("best") == best


def test_a_run_without_a_checkpoint_says_how_to_get_one(cfg, tmp_path):
    config.save(cfg("tokenizer=byte"), tmp_path / config.RESOLVED)
    with pytest.raises(ValueError, match="stopped before training began"):
        Run.open(str(tmp_path))
    tokenizers.train("byte", ["x"]).save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=f"has no checkpoint: .*resume={tmp_path} makes one"):
        Run.open(str(tmp_path)).model()


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, pytest.param(10, marks=pytest.mark.faults)])
def test_runs_started_in_one_second_have_directories_of_their_own(n, tiny, tmp_path):
    root = Path(lm.__file__).parent.parent
    command = [sys.executable, "-m", "lm.train", *tiny, "model=bigram_counts"]
    env = {**os.environ, "PYTHONPATH": str(root)}
    children = [
        subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(n)
    ]
    assert [child.wait() for child in children] == [0] * n
    assert len(list(Path("outputs/runs").glob("*/*/summary.json"))) == n
    assert len(list(Path("outputs/cache").glob("tokens-*"))) == 1


@pytest.mark.slow
def test_an_installed_package_brings_its_settings_and_shows_them_without_a_run(tmp_path):
    """A relative config_path finds conf/ in the repository and nothing in an installed wheel."""
    root = Path(lm.__file__).parent.parent
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    (target,) = wheel["targets"].values()
    packages = {name: name for name in target["packages"]}
    for source, place in {**packages, **target["force-include"]}.items():
        shutil.copytree(root / source, tmp_path / "site" / place)
    site = str(tmp_path / "site")
    for words, part in {
        "--cfg job --resolve experiment=003_scaling_law": "name: 003_scaling_law",
        "--cfg job -p model model=gpt2": "n_embd: 768",
        "--info searchpath": f"file://{site}/lm/conf",
        "--info plugins": "Installed Hydra Plugins",
    }.items():
        done = subprocess.run(
            [sys.executable, "-m", "lm.train", *words.split()],
            env={**os.environ, "PYTHONPATH": site},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert part in done.stdout
    assert os.listdir() == ["site"]


def test_latest_is_the_run_started_last(tmp_path):
    for i, name in enumerate(["runs/d/a", "sweeps/d/s/0", "runs/d/b", "runs/mine", "sweeps/s/0"]):
        path = Path("outputs") / name / "config.resolved.yaml"
        path.parent.mkdir(parents=True)
        path.touch()
        for newest in range(i + 1):
            os.utime(path, (0, 100 * (newest == i)))
        assert find_run("latest") == Path("outputs") / name
        os.utime(path, (0, 0))
