"""What a resumed run may change, and what it may not."""

import json
import os
import signal
from pathlib import Path

import pytest

from lm import config
from lm.launch import jobs, resume
from lm.record import ownership
from lm.system import files
from lm.system.errors import ConfigError
from tests.helpers import TINY_TRANSFORMER

GOES_ON = {
    "train.keep_last=5": 5,
    "train.log_every=50": 50,
    "track.mode=off": "off",
    "track.tags=[a,b]": ["a", "b"],
    "track.notes='two words'": "two words",
    "train.prompts=['The king',x]": ["The king", "x"],
    "train.threads=1": 1,
    "train.n_proc=2": 2,
    "train.dist_timeout=60": 60.0,
    "train.micro_batch=auto": "auto",
    "++train.device=cpu": "cpu",
    "name=mine": "mine",
    "train.steps=3000": 3000,
    "optimizer.lr=0.03": 0.03,  # as it was
}


@pytest.mark.parametrize("word", GOES_ON)
def test_a_resumed_run_takes_what_changes_no_result(word, cfg, tmp_path):
    """Only train.* keys of a list kept by hand were taken: train.log_every was refused."""
    ownership.save(cfg("track=offline"), tmp_path)
    job = resume.job([f"resume={tmp_path}", word])
    jobs.claim(job)
    saved = config.flat(config.load(tmp_path / config.RESOLVED))
    assert saved[word.partition("=")[0].lstrip("+")] == GOES_ON[word]
    assert saved == config.flat(job.cfg)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer.lr=1", r"optimizer\.lr is 0\.03 there and 1\.0 here; another optimizer\.lr"),
        ("seed=1", "another seed makes another run"),
        ("train.eval_every=7", r"another train\.eval_every makes another run"),
        ("train.dtype=bfloat16", "train.dtype is auto there"),
        ("train.log_evry=5", r"did you mean train\.log_every\?"),
        ("train.log_every=5,6", "a resumed run has one value of train.log_every"),
        ("train.log_every=x", r"train\.log_every: Value 'x'"),
        ("track.notes=${oc.env:HOME}", "write the value itself"),
        ("train.prompts=[a(b]", r"a list is .train\.prompts=\[.a\(b.\]."),
        ("nothing.here=5", "and nothing else, not nothing.here=5"),
    ],
)
def test_a_resumed_run_refuses_what_makes_another_run(word, message, cfg, tmp_path):
    config.save(cfg("track=off"), tmp_path / config.RESOLVED)
    before = (tmp_path / config.RESOLVED).read_text()
    with pytest.raises(ConfigError, match=message):
        resume.job([f"resume={tmp_path}", word])
    assert (tmp_path / config.RESOLVED).read_text() == before


WORDS = (*TINY_TRANSFORMER, "hydra.run.dir=run")


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


def test_latest_is_the_sweep_that_was_started_last(tmp_path):
    """By the file that each start writes anew, wherever under outputs/ the sweep has its place."""
    for age, folder in ((30, "outputs/sweeps/day/a"), (20, "outputs/b (1)"), (10, "elsewhere/c")):
        path = tmp_path / folder / "multirun.yaml"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    words = ["-m", "seed=0,1", "hydra.sweep.dir=latest"]
    assert resume.named_sweep(words) == [*words[:2], "hydra.sweep.dir=outputs/b (1)"]
    os.utime(tmp_path / "outputs/sweeps/day/a/multirun.yaml")  # it goes on, and is killed again
    assert resume.named_sweep(words)[2] == "hydra.sweep.dir=outputs/sweeps/day/a"
    for other in (["hydra.sweep.dir=latest"], ["-m", "hydra.sweep.dir=./latest"]):
        assert resume.named_sweep(other) == other


@pytest.mark.parametrize("outputs", [None, "outputs/runs/day/r", "outputs/sweeps"])
def test_without_a_sweep_latest_is_one_line_and_nothing_is_written(outputs, command, tmp_path):
    if outputs:
        (tmp_path / outputs).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    done = command("lm.train", "-m", "seed=0,1", "hydra.sweep.dir=latest")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: hydra.sweep.dir=latest: there is no sweep under outputs/; leave it out to start one"
    ]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_killed_sweep_goes_on_as_latest_and_trains_no_finished_arm_again(command, tiny, tmp_path):
    words = ["-m", *tiny, *TINY_TRANSFORMER, "seed=0,1", "train.save_every=5"]
    in_its_second_arm = {"LM_FAILPOINTS": "train.after_step=kill@33"}  # of 20 steps each
    killed = command("lm.train", *words, **in_its_second_arm)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    (root,) = tmp_path.glob("outputs/sweeps/*/*")
    first = (root / "0/metrics.jsonl").stat().st_mtime_ns
    done = command("lm.train", *words, "hydra.sweep.dir=latest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("outputs/sweeps/*/*")) == [root]
    assert (root / "0/metrics.jsonl").stat().st_mtime_ns == first
    assert "resumed from step_000010" in (root / "1/train.log").read_text()
    (row,) = files.read_json(root / "summary.json")["ranking"]
    assert row["n"] == 2
    other = command("lm.train", *words, "seed=0,2", "hydra.sweep.dir=latest")
    assert other.returncode == 2 and "is an arm of another sweep" in other.stderr
