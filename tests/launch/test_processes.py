"""The ranks of a run and the process that started them: none outlives it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lm.system import store
from lm.system.errors import LockedError
from tests.helpers import TINY_TRANSFORMER, start


def lives(pid: int) -> bool:
    """Whether a process is there and not only waits for its parent to look."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return listed.stdout.strip()[:1] not in ("", "Z")


def wait_until(what, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def torchrun_words(words):
    words = [word for word in words if not word.startswith("train.n_proc")]
    return ("torch.distributed.run", "--nproc-per-node", "2", "-m", "lm.train", *words)


@pytest.mark.faults
@pytest.mark.parametrize("starter", ["lm.train", "torchrun"])
def test_ranks_end_with_the_process_that_started_them_and_hold_the_run_until_then(
    starter, tiny, tmp_path
):
    """The ranks of a killed torchrun went on, without anybody who could end them."""
    words = (*tiny, *TINY_TRANSFORMER, "train.n_proc=2", "hydra.run.dir=run")
    words = ("lm.train", *words) if starter == "lm.train" else torchrun_words(words)
    errors = tmp_path / "errors.txt"
    with open(errors, "w") as file:
        points = {"LM_FAILPOINTS": "eval.mid=sleep:1000"}
        parent = start(*words, env=points, stderr=file, start_new_session=True)
    log = Path("run/train.log")
    deadline = time.monotonic() + 120
    while not log.exists() or "on cpu in" not in log.read_text():
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    pattern = "spawn_main" if starter == "lm.train" else "lm.train"
    listed = subprocess.run(
        ["pgrep", "-f", pattern, "-P", str(parent.pid)], capture_output=True, text=True
    )
    ranks = [int(pid) for pid in listed.stdout.split()]
    assert len(ranks) == 2
    for pid in ranks:
        os.kill(pid, signal.SIGSTOP)
    parent.kill()
    parent.wait()
    with pytest.raises(LockedError, match="is being written"), store.locked(Path("run")):
        pass
    for pid in ranks:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not any(lives(pid) for pid in ranks), 10)
    with store.locked(Path("run")):
        pass
    assert f"error: process {parent.pid}, which started the run, is gone" in errors.read_text()
