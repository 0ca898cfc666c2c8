"""Runs that are killed, stopped and starved end like runs that never were."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lm import checkpoint, launch
from tests.conftest import TINY_TRANSFORMER
from tests.test_loop import rows

pytestmark = pytest.mark.faults
ROOT = Path(launch.__file__).parent.parent


def start(*words: str, **env: str) -> subprocess.Popen:
    """A training command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lm.train", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def same(a: Path, b: Path, step: int) -> None:
    """The two runs have the same weights, optimizer, metrics and samples, to the bit."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (checkpoint.folder(out, step) / name for out in (a, b))
        assert one.read_bytes() == other.read_bytes(), name
    assert rows(a) == rows(b)
    assert rows(a, "samples.jsonl") == rows(b, "samples.jsonl")


def test_a_command_killed_at_random_moments_ends_like_one_that_never_stopped(tiny):
    words = (*tiny, *TINY_TRANSFORMER, "model.dropout=0.1", "train.micro_batch=2")
    words = (*words, "train.steps=300", "train.save_every=7", "train.eval_every=25")
    began = time.monotonic()
    assert start(*words, "hydra.run.dir=whole").wait() == 0
    whole_takes = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(5):
        child = start(*words, "hydra.run.dir=killed")
        time.sleep(moments.uniform(0, whole_takes))
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert start(*words, "hydra.run.dir=killed").wait() == 0
    same(Path("killed"), Path("whole"), 300)
