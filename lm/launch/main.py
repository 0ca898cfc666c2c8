"""The command line of lm.train: one run, a run that goes on, or a sweep.

main.main(run_job)        # run_job(job) -> the score that a sweep minimises
"""

import contextlib
import logging
import math
import os
import secrets
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lm.launch import cli, compose, directory, hydra_internals, logs, preflight, resume
from lm.launch.jobs import Job
from lm.launch.words import as_typed
from lm.sweep import arms, progress
from lm.sweep.arms import RESULT, ArmResult
from lm.system import files, signals, terminal
from lm.system.environment import SWEEP, launch_rank, started_by_torchrun
from lm.system.errors import ConfigError, DamagedError, LockedError, OtherRunError, Pruned

log = logging.getLogger(__name__)
Run = Callable[[Job], float]  # trains a job; returns its best val/bpb
QUIET_OVERRIDES = (  # of the ranks above 0
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)


def main(run: Run) -> None:
    """Read the command line and run what it asks for; exit 2 on a mistake in it."""
    os.environ.setdefault("LM_UID", secrets.token_hex(2))
    words = sys.argv[1:]
    cli.prepare_streams()
    with signals.installed():
        start(run, words)


def start(run: Run, words: list[str]) -> None:
    """Check the words, then let Hydra compose the jobs and run them."""
    with cli.errors_in_one_line():
        words = words_for_rank(cli.import_own_modules(words))
        words = as_typed(resume.named_sweep(words))
        sys.argv[1:] = words  # Hydra parses sys.argv itself
        compose.register(words)
        if resume.is_resumed(words):
            job = resume.job(words)
            if launch_rank() == 0:
                logs.to_terminal()
            run(job)
            return
        checked = preflight.check(words)
        if checked.plan is not None:
            progress.announce(checked.plan)

    @hydra.main(
        config_path=str(compose.folder("conf")), config_name="config", **hydra_internals.VERSION
    )
    def task(composed: DictConfig) -> float:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            with cli.errors_in_one_line():
                return arm(run, composed)
        with cli.errors_in_one_line():
            return run(job_of(composed))

    with (
        cli.errors_in_one_line(),
        compose.errors_in_one_line(words),
        hydra_internals.errors_of_launcher(),
        hydra_internals.errors_that_pass(),
        hydra_internals.trusted_targets(),
    ):
        if checked.composed is not None:
            with compose.composing():
                hydra_internals.run_composed(checked.composed, task)
        elif checked.sweep is not None:
            with compose.composing():
                hydra_internals.run_sweep(checked.sweep, task)
        else:
            task()  # Hydra reads the words itself


def words_for_rank(words: list[str]) -> list[str]:
    """The words of one of torchrun's processes: with their number, and silent above rank 0."""
    if not started_by_torchrun():
        return words
    n_proc = f"train.n_proc={os.environ['WORLD_SIZE']}"
    if {"-m", "--multirun"} & set(words):
        raise ConfigError(
            f"every process of torchrun would run the whole sweep: python -m lm.train -m {n_proc} "
            "starts the processes of each job by itself"
        )
    for word in words:
        if word.startswith("train.n_proc=") and word != n_proc:
            n = os.environ["WORLD_SIZE"]
            raise ConfigError(f"{word}, but torchrun started {n} processes: leave it out")
    if launch_rank() == 0 or resume.is_resumed(words):
        return [*words, n_proc]
    return [*words, n_proc, *QUIET_OVERRIDES]


def directory_of_job() -> Path:
    """The directory that Hydra has made for the job."""
    out = Path(HydraConfig.get().runtime.output_dir)
    with contextlib.suppress(ValueError):
        out = out.relative_to(Path.cwd())
    return out


def directory_of_sweep() -> Path:
    """That of the whole sweep: hydra.sweep.dir may be another one for each of its jobs."""
    return Path(os.environ.get(SWEEP) or HydraConfig.get().sweep.dir)


def job_of(composed: DictConfig) -> Job:
    """The job that Hydra has composed and made a directory for."""
    settings = HydraConfig.get()
    job = Job(compose.load(composed), directory_of_job(), list(settings.overrides.task))
    job.hydra, job.besides = hydra_internals.recorded(composed)
    if settings.mode == RunMode.MULTIRUN:
        job.sweep = directory_of_sweep()
        job.number = settings.job.num
    return job


def arm(run: Run, composed: DictConfig) -> float:
    """The job of one arm, from its settings to its result; the sweep is told where it is."""
    out = directory_of_job()
    settings = HydraConfig.get()
    words = list(settings.overrides.task)
    with progress.arm_in_work(settings.job.num, words, out), refusal_with_name():
        with contextlib.suppress(DamagedError):  # of our own: the arm will have failed
            directory.check(out, hydra_internals.recorded(composed)[1])
        arms.register(directory_of_sweep(), settings.job.num, out)
        try:
            job = job_of(composed)
        except Exception as error:
            result = failure(out, words, error)
            write_result(out, result)
        else:
            result = run_arm(run, job)
    if result is None:
        return math.inf
    progress.show_end(directory_of_sweep(), settings.job.num, words, result)
    return math.inf if result.value is None else result.value


@contextlib.contextmanager
def refusal_with_name() -> Iterator[None]:
    """The refusal of a directory, which ends the whole sweep, names the arm that was to have it."""
    try:
        yield
    except OtherRunError as error:
        arm_in_work = terminal.arm_in_work()
        name = f"{arm_in_work.title}: " if arm_in_work else ""
        raise OtherRunError(f"{name}{error}") from None


def run_arm(run: Run, job: Job) -> ArmResult | None:
    """Run one arm of a sweep and write its result.json: a failure does not stop the other arms.

    None if another process is at it, which will write what comes of it.
    """
    result = ArmResult(job.overrides)
    try:
        result.value = run(job)
        if not math.isfinite(result.value):
            raise ValueError("the score is not a number")
    except Pruned as reason:
        result = ArmResult(job.overrides, "pruned", error=str(reason))
    except LockedError as error:
        log.error(str(error))
        return None
    except OtherRunError:  # whose result stays
        raise
    except Exception as error:
        result = failure(job.out, job.overrides, error)
    write_result(job.out, result)
    return result


def failure(out: Path, words: list[str], error: Exception) -> ArmResult:
    """The result of an arm that an error has ended; its error.log tells where."""
    text = " ".join(str(error).split())
    log.error(f"failed: {text}")
    trace = "".join(traceback.format_exception(error))
    files.atomic_write(out / "error.log", trace.encode("utf-8", "replace"))
    return ArmResult(words, "failed", error=text)


def write_result(out: Path, result: ArmResult) -> None:
    """Write the result.json of an arm."""
    files.atomic_write(out / RESULT, files.to_json(result) + "\n")
