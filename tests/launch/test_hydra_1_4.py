"""The next Hydra, as far as it is there to be installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.faults  # it installs packages
MINE = """
from hydra.experimental.callback import Callback

class Mine(Callback):
    def on_job_start(self, config, **_):
        print("my own callback")
"""
NEXT = ("hydra-core>=1.4.0rc3,<1.5", "omegaconf>=2.4.1rc1,<2.5")


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("hydra")
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--pre", "--target", str(target)]
    done = subprocess.run([sys.executable, *words, *NEXT], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot be installed here: {done.stderr.splitlines()[-1]}")
    return target


@pytest.fixture
def command(packages, tmp_path):
    """A real process: one forked from the tests would have their Hydra."""
    env = {**os.environ, "PYTHONPATH": f"{packages}:{ROOT}"}

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True
        )

    return run


def test_a_run_a_sweep_and_a_mistake_are_as_with_hydra_1_3(command, tiny, tmp_path):
    assert command("-c", "import hydra; print(hydra.__version__)").stdout.startswith("1.4.")
    train = ("-m", "lm.train")
    small = (*tiny, "model=bigram", "train.steps=4")
    (tmp_path / "mine.py").write_text(MINE)
    small = ("import=mine", "+hydra.callbacks.mine._target_=mine.Mine", *small)
    run = command(*train, *small, "hydra.run.dir=run")
    assert run.returncode == 0 and (tmp_path / "run/summary.json").exists(), run.stderr
    assert "my own callback" in run.stdout
    again = command(*train, "resume=run", "train.steps=6")
    assert again.returncode == 0 and "step      6" in again.stdout, again.stdout + again.stderr
    sweep = command(*train, "-m", *small, "seed=0,1", "hydra.sweep.dir=sweep")
    assert sweep.returncode == 0 and "arm 2 of 2" in sweep.stdout + sweep.stderr, sweep.stderr
    for done in (run, again, sweep):
        said = done.stdout + done.stderr
        assert "Warning" not in said and "note: " not in said and "deprecated" not in said, said
    wrong = command(*train, *tiny, "model.n_layr=2")
    assert wrong.returncode == 2 and "did you mean model.n_layer?" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
