"""Before Hydra starts: compose and check every job of the command."""

import os
import secrets
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from lm.launch import compose, hydra_version
from lm.launch.jobs import same_arm
from lm.sweep import tuner
from lm.system.errors import ConfigError


def check(words: list[str]) -> None:
    """Compose and load every job of the command; raise ConfigError at the first that cannot be.

    Hydra would make the run directory first, take unknown keys given with `+`, and exit with 1.
    """
    args, strange = get_args_parser().parse_known_args(words)
    if strange and strange[0].startswith("-"):
        raise ConfigError(f"{strange[0]} is no option: settings are key=value, without dashes")
    if strange:
        raise ConfigError(f"{strange[0]}: put -m and other options before the settings")
    if plain := [w for w in args.overrides if "=" not in w and not w.startswith("~")]:
        own = f"; for a text of your own corpus=files corpus.path={plain[0]}"
        raise ConfigError(f"{plain[0]} is not key=value" + own * os.path.exists(plain[0]))
    if args.hydra_help or args.cfg or args.info is not None:
        return
    if args.shell_completion or args.config_path or args.config_name:
        return  # a configuration of somebody's own is checked when it is loaded
    extra = compose.search_path_override(args.config_dir)
    with (
        compose.errors_in_one_line(words),
        initialize_config_dir(str(compose.folder("conf")), **hydra_version.VERSION),
    ):
        there = _sweep_dir(args.overrides)
        ranking = _arms(args.overrides, extra, there) if args.multirun else [args.overrides]
        jobs = [compose.compose_job(overrides, extra) for overrides in ranking]
        if not args.multirun:
            _whole_experiment(args.overrides, extra)
        elif there and not (there / tuner.STUDY).exists():
            for number, cfg in enumerate(jobs):
                same_arm(there / str(number), cfg)
    _writable(Path("outputs"), "start in another directory")
    for key, _, value in (word.partition("=") for word in args.overrides):
        if key in ("hydra.run.dir", "hydra.sweep.dir") and "$" not in value:
            _writable(Path(value), f"choose another {key}=")


def _sweep_dir(overrides: list[str]) -> Path | None:
    """The directory of a sweep that is to go on, if the command names one that is there and its
    arms have their numbers for names."""
    named = {key: value.strip("'\"") for key, _, value in (w.partition("=") for w in overrides)}
    there = Path(named.get("hydra.sweep.dir", ""))
    numbered = "hydra.sweep.subdir" not in named
    return there if named.get("hydra.sweep.dir") and numbered and there.is_dir() else None


def _whole_experiment(overrides: list[str], extra: list[str]) -> None:
    """ConfigError for an experiment without -m, unless all that it sweeps is given: one run under
    its name would pass for its result."""
    keys = [word.partition("=")[0].lstrip("+") for word in overrides]
    if "experiment" not in keys:
        return
    composed = hydra_compose("config", overrides=[*overrides, *extra], return_hydra_config=True)
    if missing := [key for key in composed.hydra.sweeper.params or {} if key not in keys]:
        words = " ".join(overrides)
        raise ConfigError(
            f"this experiment is a sweep of {', '.join(missing)}: python -m lm.train -m {words}"
        )


def _arms(overrides: list[str], extra: list[str], there: Path | None) -> list[list[str]]:
    """The overrides of every job that Hydra's own sweeper would start."""
    # The loader knows the options of a group, which glob(*) asks for.
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    fixed = [o for o in overrides if not parser.parse_override(o).is_sweep_override()]
    lenient = [compose.accepting_unknown_keys(word) for word in fixed]
    composed = hydra_compose("config", overrides=[*lenient, *extra], return_hydra_config=True)
    sweeper = composed.hydra.sweeper
    if sweeper._target_.endswith("lm.Tuner"):
        if there:
            tuner.same_search(there, *tuner.search_space(parser, sweeper.params, overrides))
        return tuner.corners(parser, sweeper.params, overrides)
    if there and (there / tuner.STUDY).exists():
        raise ConfigError(
            f"{there} holds a search, which hydra/sweeper=lm goes on with: give another "
            "hydra.sweep.dir"
        )
    if not sweeper._target_.endswith("BasicSweeper"):
        return [fixed]  # a sweeper of another kind has its own grammar
    params = [f"{k}={v}" for k, v in (sweeper.params or {}).items()]
    batches = BasicSweeper.split_arguments(parser.parse_overrides([*params, *overrides]), None)
    return [arm for batch in batches for arm in batch]


def _writable(path: Path, way_out: str) -> None:
    """Write into the folder, or into the nearest above that is there; ConfigError if that fails."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
    try:
        probe = there / f".probe-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write to {there} ({error.strerror}): {way_out}") from None
