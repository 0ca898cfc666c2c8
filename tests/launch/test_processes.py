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


@pytest.mark.faults
def test_ranks_end_with_the_process_that_started_them_and_hold_the_run_until_then(tiny, tmp_path):
    words = (*tiny, *TINY_TRANSFORMER, "train.n_proc=2", "hydra.run.dir=run")
    errors = tmp_path / "errors.txt"
    with open(errors, "w") as file:
        points = {"LM_FAILPOINTS": "eval.mid=sleep:1000"}
        parent = start("lm.train", *words, env=points, stderr=file, start_new_session=True)
    deadline = time.monotonic() + 120
    log = Path("run/train.log")
    while not log.exists() or "on cpu in" not in log.read_text():
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    listed = subprocess.run(
        ["pgrep", "-f", "spawn_main", "-P", str(parent.pid)], capture_output=True, text=True
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
    deadline = time.monotonic() + 10
    while any(lives(pid) for pid in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with store.locked(Path("run")):
        pass
    assert f"error: process {parent.pid}, which started the run, is gone" in errors.read_text()
