"""From the command line to a job: Hydra composes, config.load checks, one error is one line.

    launch.main(run)        # run(job) -> the score that a sweep minimises

Neither torch nor wandb is loaded before the configuration is known to be good.
"""

import contextlib
import json
import logging
import math
import os
import re
import secrets
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm import cli, compat, config, signals, store
from lm.config import Config, ConfigError
from lm.export import hf_config
from lm.jobs import MAY_CHANGE, Job, OtherRunError, same_arm
from lm.sweep import arms, tuner

log = logging.getLogger(__name__)
SECRET = re.compile(r"oc\.env:\s*([^,}]*(?:KEY|TOKEN|SECRET|PASSW)[^,}]*)", re.IGNORECASE)
MUTE = ("hydra.run.dir=.", "hydra.output_subdir=null")  # what ranks above 0 tell Hydra
MUTE = (*MUTE, "hydra/job_logging=none", "hydra/hydra_logging=none")


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
    with signals.handled():
        _main(run, words)


def _main(run: Callable[[Job], float], words: list[str]) -> None:
    with cli.errors_in_one_line():
        words = sys.argv[1:] = _of_rank(cli.without_imports(words))  # Hydra reads sys.argv again
        register()
        if any(w.startswith("resume=") for w in words):
            run(resumed(words))
            return
        check(words)

    @hydra.main(config_path=str(folder("conf")), config_name="config", **compat.VERSION)
    def task(composed: DictConfig) -> float:
        sweep = HydraConfig.get().mode.name == "MULTIRUN"
        return _arm(run, composed) if sweep else _single(run, composed)

    task()


def _of_rank(words: list[str]) -> list[str]:
    """The words of one of torchrun's processes: with their number, and silent above rank 0."""
    if not cli.torchrun():
        return words
    n = os.environ["WORLD_SIZE"]
    if {"-m", "--multirun"} & set(words):
        raise ConfigError(
            "every process of torchrun would run the whole sweep: python -m lm.train -m "
            f"train.n_proc={n} starts the processes of each job by itself"
        )
    if other := [w for w in words if w.startswith("train.n_proc=") and w != f"train.n_proc={n}"]:
        raise ConfigError(f"{other[0]}, but torchrun started {n} processes: leave it out")
    mute = () if cli.rank() == 0 or any(w.startswith("resume=") for w in words) else MUTE
    return [*words, f"train.n_proc={n}", *mute]


def folder(name: str) -> Path:
    """conf/ or experiments/: inside the installed package, or beside it in the repository."""
    package = Path(__file__).parent
    found = package / name
    return found if found.is_dir() else package.parent / name


def register() -> None:
    """Tell Hydra our dataclasses, the experiments and the ranking of a sweep."""
    cs = ConfigStore.instance()
    cs.store(group="schema", name="config", node=Config)
    for group in config.PARTS:
        for name, cls in config.options(group).items():
            cs.store(group=f"schema/{group}", name=name, node=cls)
    for path in sorted(folder("experiments").glob("*/run.yaml")):
        _store_experiment(cs, path.parent.name, OmegaConf.load(path))
    ranking = {"_target_": "lm.sweep.ranking.Ranking"}
    cs.store(group="hydra/callbacks", name="lm", node={"lm": ranking})
    tuner.register()


def _store_experiment(cs: ConfigStore, name: str, settings: DictConfig) -> None:
    """An option of the group `experiment`. Its `arms`, which need not have the same keys, become
    options NAME/ARM of the group `arm`, and its sweep goes over them."""
    own = settings.pop("arms", {})
    for arm, node in own.items():
        cs.store(group=f"arm/{name}", name=arm, node=node, package="_global_")
    if own:
        every = {"arm": ",".join(f"{name}/{arm}" for arm in own)}
        settings = OmegaConf.merge({"hydra": {"sweeper": {"params": every}}}, settings)
    cs.store(group="experiment", name=name, node=settings, package="_global_")


# ------------------------------------------------------------------------- before Hydra starts


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
    extra = _extra(args.config_dir)
    with _errors(words), initialize_config_dir(str(folder("conf")), **compat.VERSION):
        there = _sweep_dir(args.overrides)
        arms = _arms(args.overrides, extra, there) if args.multirun else [args.overrides]
        jobs = [_composed(overrides, extra) for overrides in arms]
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
    composed = compose("config", overrides=[*overrides, *extra], return_hydra_config=True)
    if missing := [key for key in composed.hydra.sweeper.params or {} if key not in keys]:
        words = " ".join(overrides)
        raise ConfigError(
            f"this experiment is a sweep of {', '.join(missing)}: python -m lm.train -m {words}"
        )


def compose_run(words: list[str]) -> Config:
    """The checked configuration that `python -m lm.train WORDS` would train; raises ConfigError."""
    register()
    args = get_args_parser().parse_args(words)
    with _errors(words), initialize_config_dir(str(folder("conf")), **compat.VERSION):
        return _composed(args.overrides, _extra(args.config_dir))


def _extra(config_dir: str | None) -> list[str]:
    """The override that lets presets of the user's own be found."""
    return [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []


def _composed(overrides: list[str], extra: list[str]) -> Config:
    lenient = [_accepting_unknown_keys(word) for word in overrides]
    composed = compose("config", overrides=[*lenient, *extra])
    keys = {word: word.partition("=")[0].lstrip("+") for word in overrides}
    if composed.get("init_from"):
        _one_model(keys)
    cfg = load(composed)
    _one_budget(keys.values(), cfg)
    return cfg


def _one_model(keys: dict[str, str]) -> None:
    """ConfigError where words name a model or tokenizer though `init_from` brings both; `keys`
    holds the key of each word."""
    free = ("model.context_len", "model.dropout")
    parts = ("model", "tokenizer")
    if theirs := [w for w, k in keys.items() if k.split(".")[0] in parts and k not in free]:
        raise ConfigError(
            f"init_from= brings its model and tokenizer: leave out {', '.join(theirs)}"
        )


def _one_budget(keys: Collection[str], cfg: Config) -> None:
    """ConfigError where train.steps is given though another budget ends the run."""
    if "train.steps" in keys and (other := cfg.train.budgets()):
        key = other[0].partition("=")[0]
        raise ConfigError(
            f"train.steps beside {other[0]}: a run has one budget; leave train.steps out, or give "
            f"{key}=0 too"
        )


@contextlib.contextmanager
def _errors(words: list[str]) -> Iterator[None]:
    """Hydra's errors as ours, in one line."""
    try:
        yield
    except AssertionError:  # Hydra's own, of words such as +=x
        raise ConfigError(f"{' '.join(words)}: a word here is not key=value") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from None


def load(composed: DictConfig) -> Config:
    """What Hydra composed, as a checked Config. No secret of the environment gets into it."""
    for key, value in config.flat_values(OmegaConf.to_container(composed, resolve=False)).items():
        if isinstance(value, str) and (secret := SECRET.search(value)):
            raise ConfigError(f"{key}={value}: {secret[1]} would be written into the run's files")
    values = OmegaConf.to_container(composed, resolve=True)
    values = {str(k): v for k, v in values.items() if k not in ("hydra", "experiment")}
    return config.load(hf_config.adopt(values) if values.get("init_from") else values)


def _arms(overrides: list[str], extra: list[str], there: Path | None) -> list[list[str]]:
    """The overrides of every job that Hydra's own sweeper would start."""
    # The loader knows the options of a group, which glob(*) asks for.
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    fixed = [o for o in overrides if not parser.parse_override(o).is_sweep_override()]
    lenient = [_accepting_unknown_keys(word) for word in fixed]
    composed = compose("config", overrides=[*lenient, *extra], return_hydra_config=True)
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


def _accepting_unknown_keys(word: str) -> str:
    """`a.b=1` as `++a.b=1`: a key that does not exist then gets config.load's better message."""
    key = word.partition("=")[0]
    is_group = key.split("@")[0] in (*config.PARTS, "train", "track", "experiment", "arm")
    return word if is_group or key.startswith(("hydra", "+", "~")) else f"++{word}"


def _one_line(error: Exception) -> str:
    """Hydra's message and its cause, without search paths and without its advice to use `+`."""
    text = str(error).partition("Config search path")[0].replace("\n\t", " ")
    if isinstance(error.__cause__, (HydraException, OmegaConfBaseException)):
        text += "\n" + str(error.__cause__).partition("\n")[0]
    lines = [line.strip().removeprefix("In 'config': ") for line in text.splitlines()]
    lines = [line for line in lines if line and "hydra.cc/docs" not in line]
    text = "; ".join(dict.fromkeys(lines)).replace("++", "")
    if number := re.search(r"Value '(\d+)\.0' of type 'float' could not be .* to Integer", text):
        text += f": write {number[1]}"
    if "schema/model/" in text:
        text += "; a model of your own takes import=MODULE too"
    quote = "; a value that holds = needs two pairs of quotes: 'key=\"a=b\"'"
    return text + quote * text.startswith("mismatched input '='")


def _writable(path: Path, way_out: str) -> None:
    """Write into the folder, or into the nearest above that is there; ConfigError if that fails."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
    try:
        probe = there / f".probe-{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write to {there} ({error.strerror}): {way_out}") from None


def resumed(words: list[str]) -> Job:
    """The job of `resume=DIR`: its saved configuration, in its own directory."""
    values = dict(word.partition("=")[::2] for word in words)
    name = values.pop("resume")
    if others := sorted(set(values) - set(MAY_CHANGE)):
        raise ConfigError(
            f"resume={name} takes {', '.join(MAY_CHANGE)} and nothing else, not {others[0]}: "
            "another setting makes another run"
        )
    out = cli.find_run(name)
    store.no_links(out)
    saved = config.read_yaml(out / config.RESOLVED)
    config.load(saved)  # now, or saved["train"] may be anything
    for key, value in values.items():
        saved["train"][key.removeprefix("train.")] = value
    job = Job(config.load(saved), out, words)
    _one_budget(values, job.cfg)
    if cli.rank() == 0:
        log_to(out)
    return job


def log_to(out: Path) -> None:
    """Log as Hydra's jobs do: to the terminal and to the run's train.log."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[Console()])
    file = logging.FileHandler(out / "train.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(file)


# --------------------------------------------------------------------------- inside Hydra's jobs


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
    except arms.Pruned as reason:
        record |= {"status": "pruned", "value": None, "error": str(reason)}
    except store.HeldError as error:
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
    store.atomic_write(job.out / "result.json", json.dumps(record, indent=1) + "\n")
    return math.inf if record["value"] is None else record["value"]


def _job(composed: DictConfig) -> Job:
    hydra_cfg = HydraConfig.get()
    sweep = Path(hydra_cfg.sweep.dir) if hydra_cfg.mode.name == "MULTIRUN" else None
    out = Path(hydra_cfg.runtime.output_dir)
    with contextlib.suppress(ValueError):
        out = out.relative_to(Path.cwd())
    return Job(load(composed), out, list(hydra_cfg.overrides.task), sweep)


def usage() -> str:
    """The help page: commands, then the choices of every group."""
    groups = [*config.PARTS, "train", "track", "experiment"]
    rows = []
    for group in groups:
        names = sorted(p.stem for p in (folder("conf") / group).glob("*.yaml"))
        if group == "experiment":
            names = sorted(p.parent.name for p in folder("experiments").glob("*/run.yaml"))
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
