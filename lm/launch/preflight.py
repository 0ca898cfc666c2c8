"""Before Hydra starts: compose and check every job of the command.

Hydra would make the run directory first, take unknown keys given with `+`, and exit with 1.
"""

import argparse
import contextlib
import importlib.util
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from hydra import compose as hydra_compose
from omegaconf import DictConfig, ListConfig, OmegaConf

from lm.config import Config
from lm.launch import compose, directory, hydra_internals, values
from lm.launch.jobs import same_arm
from lm.launch.words import read
from lm.settings.reading import flat_values
from lm.sweep import labels, space, study
from lm.sweep.progress import Plan
from lm.system.errors import FULL, ConfigError, DamagedError, StorageError
from lm.system.text import shell_word


@dataclass
class Checked:
    """What is known of a command before Hydra starts."""

    plan: Plan | None = None  # of a sweep: its arms
    composed: DictConfig | None = None  # a single run, as compose.compose_whole gives it
    sweep: list[str] | None = None  # the overrides of a sweep


def check(words: list[str]) -> Checked:
    """Raise ConfigError at the first job of the command that cannot be run."""
    args = compose.read_arguments(words)
    checked = Checked(plan=Plan() if args.multirun else None)
    _check_options(args)
    if args.hydra_help or args.shell_completion:
        return checked
    extra = compose.search_path_override(args.config_dir)
    folder = Path(args.config_path) if args.config_path else compose.folder("conf")
    with compose.errors_in_one_line(words), compose.composing(folder):
        if args.config_path or args.config_name:  # one's own, which is checked when it is loaded
            fixed = _without_sweeps(args.overrides)
            _check_hydra(_with_hydra([*fixed, *extra], args.config_name or "config"))
            return checked
        if args.multirun:
            checked.plan = _check_sweep(args.overrides, extra)
            if not args.config_dir:  # which hydra.main knows where to look in
                checked.sweep = args.overrides
        else:
            composed = compose.compose_whole(args.overrides, extra)
            compose.checked_job(args.overrides, composed)
            _check_hydra(composed)
            if args.package and OmegaConf.select(composed, args.package) is None:
                raise ConfigError(f"--package {args.package}: there is no such part")
            if not (args.cfg or args.info):
                _whole_experiment(args.overrides, composed)
                if not composed.hydra.verbose:  # hydra.main shows all that it does
                    checked.composed = composed
    if not (args.cfg or args.info):
        _check_directories(args.overrides)
    return checked


def _check_options(args: argparse.Namespace) -> None:
    """ConfigError for an option of Hydra's that has no use here, or not beside another one."""
    if args.experimental_rerun:
        raise ConfigError(
            f"--experimental-rerun {args.experimental_rerun} would run what that file holds: give "
            "the words of the run again, or resume=RUN"
        )
    if args.config_dir and not Path(args.config_dir).is_dir():
        raise ConfigError(f"--config-dir {args.config_dir}: there is no such folder")
    path = args.config_path
    if path and not (Path(path).is_absolute() and Path(path).is_dir()):
        raise ConfigError(f"--config-path {path}: give a folder by its absolute path")
    if (args.resolve or args.package) and not args.cfg:
        raise ConfigError("--resolve and --package go with --cfg job")
    names = ("run", "multirun", "cfg", "info", "shell_completion")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: give one of them")


def _check_hydra(composed: DictConfig) -> None:
    """ConfigError for a setting of Hydra's own with which no run could work."""
    if composed.hydra.job.chdir:
        raise ConfigError(
            "hydra.job.chdir=true: leave it out; paths are read from where the command starts"
        )
    _check_verbose(composed.hydra.verbose)
    if composed.hydra.mode is not None:
        raise ConfigError(f"hydra.mode={composed.hydra.mode.name}: leave it out; -m makes a sweep")
    subdir = composed.hydra.output_subdir
    if subdir not in (None, ".hydra"):  # Hydra would write there before the directory is the run's
        raise ConfigError(
            f"hydra.output_subdir={subdir}: leave it out; lm writes .hydra in the run"
        )
    folder = flat_values(compose.plain(composed, resolve=False))["hydra.run.dir"]
    if not folder:
        raise ConfigError("hydra.run.dir is empty: give a folder, or leave it out")
    if "\\${" in folder:  # Hydra would look for what it means later, and fail
        raise ConfigError(f"hydra.run.dir={folder}: choose a name without ${{")


def _check_verbose(verbose: object) -> None:
    """ConfigError unless hydra.verbose is true, false, or the names of modules that log."""
    if isinstance(verbose, bool):
        return
    for name in verbose if isinstance(verbose, ListConfig) else [verbose]:
        if not (isinstance(name, str) and _is_module(name)):
            raise ConfigError(
                f"hydra.verbose={name}: give true, false, or modules that log, such as lm.loop"
            )


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _without_sweeps(overrides: list[str]) -> list[str]:
    parser = hydra_internals.overrides_parser()
    return [word for word in overrides if not parser.parse_override(word).is_sweep_override()]


def _check_sweep(overrides: list[str], extra: list[str]) -> Plan:
    """Compose every arm of a sweep; where its directory is there already, it must be this one's."""
    root = _existing_sweep(overrides)
    jobs, n_arms = _arms(overrides, extra, root)
    configs = compose.compose_jobs(jobs, extra)
    if any(word.lstrip("+").startswith("hydra.sweep.subdir=") for word in overrides):
        _check_arms(jobs, configs, extra)
    elif root and not (root / study.STUDY).exists():
        for number, cfg in enumerate(configs):
            same_arm(root, root / str(number), cfg)
    return Plan(n_arms, None if n_arms is None else labels.varied(jobs))


def _existing_sweep(overrides: list[str]) -> Path | None:
    """The directory of a sweep that is to go on, if the command names one that is there."""
    named = {}
    for word in overrides:
        key = word.partition("=")[0]
        named[key] = read(word)
    name = named.get("hydra.sweep.dir")
    if not name:
        return None
    return Path(name) if Path(name).is_dir() else None


def _whole_experiment(overrides: list[str], composed: DictConfig) -> None:
    """ConfigError for an experiment without -m, unless all that it sweeps is given: one run under
    its name would pass for its result."""
    keys = [word.partition("=")[0].lstrip("+") for word in overrides]
    if "experiment" not in keys:
        return
    swept = composed.hydra.sweeper.params or {}
    missing = [key for key in swept if key not in keys]
    if missing:
        words = " ".join(map(shell_word, overrides))
        raise ConfigError(
            f"this experiment is a sweep of {', '.join(missing)}: python -m lm.train -m {words}"
        )


def _arms(
    overrides: list[str], extra: list[str], root: Path | None
) -> tuple[list[list[str]], int | None]:
    """The overrides of every job that the sweep would start, of a search its extreme ones; and how
    many there are, None if only its sweeper knows."""
    parser = hydra_internals.overrides_parser()
    fixed = _without_sweeps(overrides)
    lenient = [compose.accepting_unknown_keys(word) for word in fixed]
    composed = _with_hydra([*lenient, *extra])
    _check_hydra(composed)
    sweeper = composed.hydra.sweeper
    values.check([f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()], True)
    if sweeper._target_ == compose.TUNER:
        settings = space.tuner_settings(sweeper)
        study.check_storage(settings.storage, root)
        words, searched = space.search_space(parser, sweeper.params, overrides)
        if root:
            study.same_search(root, words, searched)
        is_grid = settings.sampler == "grid"
        n_trials = len(space.grid(searched)) if is_grid else settings.n_trials
        return space.corners(words, searched), n_trials
    if root and (root / study.STUDY).exists():
        raise ConfigError(
            f"{root} holds a search, which hydra/sweeper=lm goes on with: give another "
            "hydra.sweep.dir"
        )
    if hydra_internals.is_grid_sweeper(sweeper._target_):
        if sweeper.max_batch_size is not None and sweeper.max_batch_size < 1:
            raise ConfigError(
                f"hydra.sweeper.max_batch_size={sweeper.max_batch_size}: must be at least 1"
            )
        jobs = hydra_internals.grid(parser, sweeper.params, overrides)
        return jobs, len(jobs)
    return [fixed], None  # a sweeper of another kind has its own grammar


def _with_hydra(overrides: list[str], name: str = "config") -> DictConfig:
    """What the words compose, Hydra's own settings included."""
    with compose.errors_of_hydra(overrides):
        return hydra_compose(name, overrides=overrides, return_hydra_config=True)


def _check_directories(overrides: list[str]) -> None:
    """ConfigError unless the command can write where it is told to."""
    _writable(Path("outputs"), "start in another directory")
    for word in overrides:
        key = word.partition("=")[0]
        if key in ("hydra.run.dir", "hydra.sweep.dir") and "${" not in word:
            _writable(Path(read(word)), f"choose another {key}=")


def _writable(path: Path, way_out: str) -> None:
    """Write into the folder, or into the nearest above that exists.

    Raises StorageError on a full disk, else ConfigError.
    """
    existing = _existing(path)
    try:
        probe = existing / f".probe-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        kind = StorageError if error.errno in FULL else ConfigError
        raise kind(f"cannot write to {existing} ({error.strerror}): {way_out}") from None


def _existing(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if os.path.lexists(p))


def _check_arms(jobs: list[list[str]], configs: list[Config], extra: list[str]) -> None:
    """ConfigError where two arms would write into one directory, or one into somebody else's.

    Hydra would have made the sweep's own directory before an arm finds that.
    """
    composed = [_composed_arm(number, job, extra) for number, job in enumerate(jobs)]
    taken: dict[Path, tuple[int, Config]] = {}
    checked: set[Path] = set()  # folders that are there, for the directories of the arms
    for number, (whole, cfg) in enumerate(zip(composed, configs, strict=True)):
        OmegaConf.copy_cache(composed[0], whole)  # as Hydra does: ${now:...} is one moment
        with hydra_internals.current(whole):  # what ${hydra:...} looks at
            root = Path(os.path.abspath(whole.hydra.sweep.dir))
            out = Path(os.path.abspath(root / whole.hydra.sweep.subdir))
        subdir = f"hydra.sweep.subdir={os.path.relpath(out, root)}"
        if root.is_relative_to(out):
            raise ConfigError(f"{subdir}: the sweep itself is there; give each arm a directory")
        if out.is_relative_to(root) and directory.is_of_sweep(out.relative_to(root).parts[0]):
            raise ConfigError(f"{subdir}: the sweep's own files are called so; choose another name")
        existing = _existing(out)
        if existing not in checked:
            _writable(existing, f"{subdir} is not possible, choose another")
            checked.add(existing)
        other, its_cfg = taken.setdefault(out, (number, cfg))
        if its_cfg != cfg:
            raise ConfigError(
                f"{subdir} is the directory of arms {other} and {number}: a name that differs "
                "holds ${hydra.job.num}, or what is swept"
            )
        with contextlib.suppress(DamagedError):  # of our own: the arm will have failed
            directory.check(Path(os.path.relpath(out)))
        if root.is_dir() and not (root / study.STUDY).exists():
            same_arm(root, Path(os.path.relpath(out)), cfg)


def _composed_arm(number: int, job: list[str], extra: list[str]) -> DictConfig:
    """What Hydra composes for one arm, its own settings included."""
    lenient = [compose.accepting_unknown_keys(word) for word in job]
    return _with_hydra([*lenient, *extra, f"hydra.job.num={number}", f"hydra.job.id={number}"])
