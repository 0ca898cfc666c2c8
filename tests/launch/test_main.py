"""One job of a command: in a sweep, in a launcher's process, repeated from its own files."""

import os
import signal
import subprocess
import sys
import time

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from lm import config
from lm.launch import compose, jobs, main
from lm.settings.yaml_files import read_yaml
from lm.sweep import ranking
from lm.system import files
from lm.system.environment import SWEEP
from lm.system.errors import LockedError
from tests.helpers import TINY_TRANSFORMER, start

MINE = """
from dataclasses import dataclass
from typing import ClassVar
from lm.config import ModelConfig

@dataclass
class MineConfig(ModelConfig):
    builds: ClassVar[str] = "lm.models.bigram_counts:BigramCounts"
    name: str = "mine"
    add_k: float = 1.0
"""


def test_a_launcher_without_its_cluster_is_told_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LM_UID", "abcd")
    monkeypatch.setenv(SWEEP, "")  # for what the sweep sets to be taken back
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun
    monkeypatch.setattr(sys, "argv", ["lm.train"])
    silent = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    with pytest.raises(SystemExit, match="2"):
        main.start(lambda job: 1.0, ["-m", "hydra/launcher=slurm", "seed=1,2", *silent])
    assert "hydra/launcher cannot start the jobs: Could not detect" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["seed=1"], 1),  # Hydra would do it twice more
        # The sweep and what its arms choose alike to check them; the sweep and each arm to run.
        (["-m", "seed=1,2"], 5),
    ],
)
def test_what_was_composed_to_be_checked_is_not_composed_to_be_looked_at(
    words, expected, monkeypatch
):
    """Each time takes 0.1 s."""
    monkeypatch.setenv("LM_UID", "abcd")
    monkeypatch.setenv(SWEEP, "")  # for what the sweep sets to be taken back
    monkeypatch.setattr(sys, "argv", ["lm.train"])
    composed = []
    load = ConfigLoaderImpl.load_configuration

    def counted(self, config_name, overrides, *args, **options):
        composed.append(overrides)
        return load(self, config_name, overrides, *args, **options)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    seeds = []

    def run(job):
        seeds.append(job.cfg.seed)
        config.save(job.cfg, job.out / config.RESOLVED)
        return 1.0

    silent = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    main.start(run, [*words, "track=off", *silent])
    assert len(composed) == expected and seeds == [1, 2][: len(seeds)] != []


@pytest.mark.faults
def test_a_run_s_own_hydra_files_repeat_it(command, tiny, tmp_path):
    assert command("lm.train", *tiny, *TINY_TRANSFORMER, "hydra.run.dir=a").returncode == 0
    words = ["--config-path", str(tmp_path / "a/.hydra"), "--config-name", "config"]
    again = command("lm.train", *words, "hydra.run.dir=b")
    assert again.returncode == 0, again.stderr
    weights = [next((tmp_path / r).rglob("step_000020/model.safetensors")) for r in "ab"]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.faults
def test_a_preempted_job_is_queued_again_and_goes_on_in_its_own_directory(command, tiny, tmp_path):
    """Slurm sends SIGUSR2 before it takes a machine away; submitit's own queue does the same."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", *tiny]
    words += [*TINY_TRANSFORMER, "train.steps=2500", "train.save_every=100", "train.eval_every=0"]
    words += ["train.sample_every=0", "hydra.sweep.dir=outputs/s", "seed=0"]
    process = start("lm.train", *words)
    arm = tmp_path / "outputs/s/0"
    deadline = time.monotonic() + 120
    while not (arm / "checkpoints/step_000100").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    job = subprocess.run(
        ["pgrep", "-f", f"submitit.core._submit {tmp_path}"], capture_output=True, text=True
    ).stdout.split()
    os.kill(int(job[0]), signal.SIGUSR2)
    assert process.wait(timeout=180) == 0
    assert files.read_json(arm / "summary.json")["step"] == 2500
    assert "resumed from step_" in (arm / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", ["local", pytest.param("submitit_local", marks=pytest.mark.faults)]
)
def test_a_launcher_runs_the_arms_in_processes_that_share_the_cores(
    command, tiny, tmp_path, launcher
):
    pytest.importorskip(
        f"hydra_plugins.hydra_{'joblib' if launcher == 'local' else 'submitit'}_launcher"
    )
    """Also a model of one's own, from a directory that no process looks into by itself."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "conf/model").mkdir(parents=True)
    yaml = "defaults: [{/schema/model@_here_: mine}, _self_]\n"
    (tmp_path / "conf/model/mine.yaml").write_text(yaml)
    words = [w for w in tiny if not w.startswith("train.threads")]
    done = command(
        "lm.train",
        "-m",
        "import=mine",
        "--config-dir",
        "conf",
        f"hydra/launcher={launcher}",
        "hydra.sweep.dir=outputs/l",
        *words,
        "model=mine",
        "seed=0,1,2",
        PYTHONSAFEPATH="1",
    )
    root = tmp_path / "outputs/l"
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = files.read_json(root / "summary.json")["ranking"]
    assert (row["n"], row["spread"]) == (3, 0.0)
    if launcher == "local":
        import joblib  # which counts the cores that this process may use

        threads = {files.read_json(p)["threads"] for p in root.glob("*/code.json")}
        assert threads == {max(1, joblib.cpu_count() // 2)}


def test_the_slurm_preset_asks_to_be_queued_again(cfg):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    from hydra import compose as hydra_compose

    with compose.composing():
        whole = hydra_compose(
            "config", overrides=["hydra/launcher=slurm"], return_hydra_config=True
        )
    assert whole.hydra.launcher.max_num_timeout > 0
    assert whole.hydra.launcher._target_.endswith("SlurmLauncher")


def test_the_command_of_the_wandb_sweep_is_one_that_lm_train_takes(cfg):
    from wandb.sdk.launch.sweeps import utils

    sweep = read_yaml(compose.folder("experiments") / "wandb_sweep.yaml")
    chosen = {}
    for key, rule in sweep["parameters"].items():
        value = rule.get("value", rule.get("min", (rule.get("values") or [None])[-1]))
        chosen[key] = {"value": value}
    words = utils.create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    loaded = cfg(*words)
    assert loaded.track.mode == "online" and loaded.model.n_layer == 6
    assert sweep["metric"] == {"name": "val/bpb", "goal": "minimize"}
    assert sweep["command"][1:] == ["python", "-m", "lm.train", "${args_no_hyphens}"]


def test_an_arm_that_another_process_trains_is_left_to_it(cfg, tmp_path):
    job = jobs.Job(cfg("track=off"), tmp_path, [], sweep=tmp_path)
    (tmp_path / ranking.RESULT).write_text("theirs")

    def held(job):
        raise LockedError("it is being written by process 1")

    assert main.run_arm(held, job) is None
    assert (tmp_path / ranking.RESULT).read_text() == "theirs"
