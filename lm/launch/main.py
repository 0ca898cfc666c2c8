"""The command line of lm.train: one run, a run that goes on, or a sweep.

launch.main(run)        # run(job) -> the score that a sweep minimises
"""

import contextlib
import json
import logging
import math
import os
import secrets
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from lm import config
from lm.launch import cli, compose, hydra_version, jobs, preflight
from lm.launch.jobs import Job
from lm.record.find import find_run
from lm.settings import read_yaml
from lm.system import files, signals
from lm.system.errors import ConfigError, LockedError, OtherRunError, Pruned
from lm.system.processes import launch_rank, started_by_torchrun

log = logging.getLogger(__name__)
QUIET_OVERRIDES = (  # of the ranks above 0
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)


class Console(logging.StreamHandler):
    """Prints to whatever sys.stdout is now, so that a live progress bar can stay below the log."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def main(run: Callable[[Job], float]) -> None:
    """Read the command line and run what it asks for; exit 2 on a mistake in it."""
    os.environ.setdefault("LM_UID", secrets.token_hex(2))
    words = sys.argv[1:]
    cli.prepare_streams()
    if {"-h", "--help"} & set(words):
        print(usage())  # Hydra's own page takes 2 s to list the same groups
        return
    with signals.installed():
        _main(run, words)


def _main(run: Callable[[Job], float], words: list[str]) -> None:
    with cli.errors_in_one_line():
        words = sys.argv[1:] = _of_rank(cli.without_imports(words))  # Hydra reads sys.argv again
        compose.register()
        if any(w.startswith("resume=") for w in words):
            run(resumed(words))
            return
        preflight.check(words)

    @hydra.main(
        config_path=str(compose.folder("conf")), config_name="config", **hydra_version.VERSION
    )
    def task(composed: DictConfig) -> float:
        sweep = HydraConfig.get().mode.name == "MULTIRUN"
        return _arm(run, composed) if sweep else _single(run, composed)

    task()


def _of_rank(words: list[str]) -> list[str]:
    """The words of one of torchrun's processes: with their number, and silent above rank 0."""
    if not started_by_torchrun():
        return words
    n = os.environ["WORLD_SIZE"]
    if {"-m", "--multirun"} & set(words):
        raise ConfigError(
            "every process of torchrun would run the whole sweep: python -m lm.train -m "
            f"train.n_proc={n} starts the processes of each job by itself"
        )
    if other := [w for w in words if w.startswith("train.n_proc=") and w != f"train.n_proc={n}"]:
        raise ConfigError(f"{other[0]}, but torchrun started {n} processes: leave it out")
    mute = (
        () if launch_rank() == 0 or any(w.startswith("resume=") for w in words) else QUIET_OVERRIDES
    )
    return [*words, f"train.n_proc={n}", *mute]


def resumed(words: list[str]) -> Job:
    """The job of `resume=DIR`: its saved configuration, in its own directory.

    Other words may give it another budget, or change what leaves weights and scores as they are;
    ConfigError names one that would make another run.
    """
    name = [word.removeprefix("resume=") for word in words if word.startswith("resume=")][-1]
    changed = {}
    for word in words:
        if not word.startswith("resume="):
            changed |= _change_on_resume(name, word)
    out = find_run(name)
    files.no_links(out)
    values = read_yaml(out / config.RESOLVED)
    saved = config.load(values)  # now, or values["train"] may be anything
    for key, value in changed.items():
        group, _, last = key.rpartition(".")
        (values[group] if group else values)[last] = value
    cfg = config.load(values)
    for key, text in jobs.changes(saved, cfg).items():
        if not jobs.may_change(key):
            raise ConfigError(f"resume={name}: {text}; another {key} makes another run")
    compose.check_one_budget(changed, cfg)
    if launch_rank() == 0:
        log_to(out)
    return Job(cfg, out, words)


def _change_on_resume(name: str, word: str) -> dict[str, object]:
    """The key of a word beside resume=, and its value as Hydra reads it."""
    key = word.partition("=")[0].lstrip("+")
    group = key.rpartition(".")[0]
    if "=" not in word or key in config.GROUPS or group not in ("", *config.GROUPS):
        raise ConfigError(
            f"resume={name} takes single settings, such as train.steps=3000 or track.mode=off, "
            f"and nothing else, not {word}"
        )
    with compose.errors_in_one_line([word]):
        override = OverridesParser.create().parse_override(word)
    if override.is_sweep_override():
        raise ConfigError(f"resume={name} goes on with one value of {key}, not with {word}")
    return {key: override.value()}


def log_to(out: Path) -> None:
    """Log as Hydra's jobs do: to the terminal and to the run's train.log."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Console()])
    file = logging.FileHandler(out / "train.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(file)


def _single(run: Callable[[Job], float], composed: DictConfig) -> float:
    with cli.errors_in_one_line():
        return run(_job(composed))
    raise AssertionError("an error always leaves through the clause above")


def _arm(run: Callable[[Job], float], composed: DictConfig) -> float:
    """One arm of a sweep. Its failure is recorded and does not stop the others."""
    job = _job(composed)
    record: dict[str, Any] = {"overrides": job.overrides, "status": "ok", "error": None}
    try:
        record["value"] = run(job)
    except Pruned as reason:
        record |= {"status": "pruned", "value": None, "error": str(reason)}
    except LockedError as error:
        log.warning(str(error))  # that process will write what comes of it
        return math.inf
    except OtherRunError as error:  # whose result stays
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        log.error(f"{job.out} failed: {error}")
        (job.out / "error.log").write_text(traceback.format_exc(), encoding="utf-8")
        record |= {"status": "failed", "value": None, "error": " ".join(str(error).split())}
    if isinstance(record["value"], float) and not math.isfinite(record["value"]):
        record |= {"status": "failed", "value": None, "error": "the score is not a number"}
    files.atomic_write(job.out / "result.json", json.dumps(record, indent=1) + "\n")
    return math.inf if record["value"] is None else record["value"]


def _job(composed: DictConfig) -> Job:
    hydra_cfg = HydraConfig.get()
    sweep = Path(hydra_cfg.sweep.dir) if hydra_cfg.mode.name == "MULTIRUN" else None
    out = Path(hydra_cfg.runtime.output_dir)
    with contextlib.suppress(ValueError):
        out = out.relative_to(Path.cwd())
    return Job(compose.load(composed), out, list(hydra_cfg.overrides.task), sweep)


def usage() -> str:
    """The help page: commands, then the choices of every group."""
    groups = [*config.GROUPS, "experiment"]
    rows = []
    for group in groups:
        names = sorted(p.stem for p in (compose.folder("conf") / group).glob("*.yaml"))
        if group == "experiment":
            names = sorted(p.parent.name for p in compose.folder("experiments").glob("*/run.yaml"))
        rows.append(f"  {group + '=':<12} {'  '.join(names)}")
    return "\n".join(
        [
            "Train a language model: corpus, tokenizer and tokens are made if they are missing.",
            "",
            "  python -m lm.train                                  all defaults",
            "  python -m lm.train model=gru train.steps=500        every setting is key=value",
            "  python -m lm.train -m optimizer.lr=1e-3,3e-3        a sweep",
            "  python -m lm.train resume=latest                    go on where a run stopped",
            "  python -m lm.train --cfg job model=gpt2             every setting, without a run",
            "",
            "Groups (lm/config.py has each setting, its default and its unit):",
            *rows,
        ]
    )
