"""All that lm takes from inside Hydra, where its public interface has nothing for it."""

import argparse
import contextlib
import copy
import itertools
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal import utils
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    Override,
    Quote,
    QuotedString,
    Sweep,
)
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lm.sweep.space import check_values
from lm.system.environment import imported_modules
from lm.system.errors import ConfigError

MAX_ARMS = 10_000  # of a grid; each is composed and checked before the first one starts
# On 1.4 any version_base warns; on 1.3 leaving it out warns and changes the working directory.
_IS_1_3 = hydra.__version__.startswith("1.3")
VERSION: dict[str, str] = {"version_base": "1.3"} if _IS_1_3 else {}
# Since 1.4 what takes the place of an option that is stored already must say so.
REPLACE: dict[str, Any] = {} if _IS_1_3 else {"replace": True}
# What a configuration may have called: parts of lm, Hydra and its plugins, and log handlers.
TRUSTED = ("lm.*", "hydra.*", "hydra_plugins.*", "logging.*")
LAUNCHERS = ("submitit", "joblib", "hydra_plugins")  # folders of their code
UNREADABLE = object()  # stands for the value of a text that is none in Hydra's grammar


def read_arguments(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Hydra's options and the overrides among the words, and the words that are neither.

    Raises ConfigError for an option without a value, or with one that it does not have.
    """
    parser = utils.get_args_parser()
    parser.error = _refuse  # argparse's own prints a page and ends the process
    return parser.parse_known_args(list(words))


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)


@contextlib.contextmanager
def errors_that_pass() -> Iterator[None]:
    """Let an error inside leave Hydra, which would print a page of it and exit with 1."""
    before = utils.run_and_report
    utils.run_and_report = lambda action: action()
    try:
        yield
    finally:
        utils.run_and_report = before


def overrides_parser() -> OverridesParser:
    """A parser that knows the options of every group, which glob(*) asks for.

    To be used while Hydra is initialized: see compose.composing.
    """
    return OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())


def read_value(text: str) -> object:
    """What a word's value means to Hydra: a text, a number, a list, a Sweep; or UNREADABLE."""
    try:
        return OverridesParser.create().parse_override(f"key={text}").value()
    except (HydraException, AssertionError, RecursionError):
        return UNREADABLE


def is_choice(value: object) -> bool:
    """Whether a value is that of a sweep in its simple form: a,b,c."""
    return isinstance(value, ChoiceSweep) and value.simple_form


def is_sweep(value: object) -> bool:
    return isinstance(value, (Sweep, Glob))


def quoted(text: str, mark: str) -> str:
    """The text between two quotation marks, as Hydra's grammar has it."""
    quote = Quote.single if mark == "'" else Quote.double
    return QuotedString(text, quote).with_quotes()


def is_grid_sweeper(target: str) -> bool:
    """Whether this `_target_` of hydra.sweeper is Hydra's own, which runs every combination."""
    return target.endswith(f".{BasicSweeper.__name__}")


def grid(
    parser: OverridesParser, params: Mapping[str, object] | None, overrides: Sequence[str]
) -> list[list[str]]:
    """The overrides of every job that Hydra's own sweeper would start, in its order."""
    words = [f"{key}={value}" for key, value in (params or {}).items()]
    parsed = parser.parse_overrides([*words, *overrides])
    n = 1
    for override in {override.get_key_element(): override for override in parsed}.values():
        check_values(override)
        key = override.key_or_group
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line}: values of an interval are drawn by a search: add "
                f"hydra/sweeper=lm, or give {key}=A,B"
            )
        if override.is_discrete_sweep():
            n *= sum(1 for _ in itertools.islice(override.sweep_string_iterator(), MAX_ARMS + 1))
    if n > MAX_ARMS:
        raise ConfigError(f"{' '.join(overrides)}: a grid has at most {MAX_ARMS:,} arms")
    batches = BasicSweeper.split_arguments(parsed, None)
    return [list(job) for batch in batches for job in batch]


def recorded(composed: DictConfig) -> tuple[dict[str, str], tuple[str, ...]]:
    """What Hydra composed for the job that it is starting, by the names of the files that it would
    write; and the names that it has written already.

    conf/config.yaml keeps Hydra from writing before the directory is known to be ours. Somebody
    else's configuration may not.
    """
    whole = HydraConfig.instance().cfg
    settings = HydraConfig.get()
    texts = {
        ".hydra/config.yaml": OmegaConf.to_yaml(composed),
        ".hydra/hydra.yaml": OmegaConf.to_yaml(whole),
        ".hydra/overrides.yaml": OmegaConf.to_yaml(settings.overrides.task),
    }
    written = []
    if settings.output_subdir:
        written.append(settings.output_subdir)
    if "file" in ((settings.job_logging or {}).get("handlers") or {}):
        written.append(f"{settings.job.name}.log")
    return texts, tuple(written)


class ReadOnce(ConfigRepository):
    """The files and registered settings that Hydra composes from, each read once.

    Hydra's own repository reads them again for each job of a sweep, and is copied whole before.
    """

    known: dict[str, ConfigResult | None]

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self.known = {}

    def __deepcopy__(self, _: dict[int, object]) -> "ReadOnce":
        return copy.copy(self)  # whose sources Hydra may replace, and changes in no other way

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self.known:
            self.known[config_path] = super().load_config(config_path)
        return copy.deepcopy(self.known[config_path])  # Hydra changes what it gets


def read_once() -> None:
    """Let the Hydra that is initialized read each file once: see compose.composing."""
    loader = _hydra().config_loader
    assert isinstance(loader, ConfigLoaderImpl), "Hydra's only loader"
    loader.repository = ReadOnce(loader.config_search_path)


def _hydra() -> Hydra:
    found = GlobalHydra.instance().hydra
    assert found is not None, "Hydra is initialized: see compose.composing"
    return found


def trusted_targets() -> contextlib.AbstractContextManager[object]:
    """Inside, Hydra from 1.4 on calls nothing that a configuration names but what is TRUSTED or a
    part of a module that import= has named."""
    whitelist = getattr(hydra.utils, "execution_whitelist", None)
    own = [f"{name}.*" for name in imported_modules()]
    return whitelist([*TRUSTED, *own]) if whitelist else contextlib.nullcontext()


def with_values(composed: DictConfig, overrides: Sequence[Override]) -> DictConfig:
    """A copy of what was composed in which further words have set values, as Hydra sets them."""
    changed = copy.deepcopy(composed)
    ConfigLoaderImpl._apply_overrides_to_config(list(overrides), changed)
    return changed


def run_composed(composed: DictConfig, task: TaskFunction) -> None:
    """Run a single job that is composed already, as hydra.main does after composing it twice.

    To be used while Hydra is initialized: see compose.composing.
    """
    configure_log(composed.hydra.hydra_logging)
    running: Any = _hydra()
    running.compose_config = lambda **_: composed
    running.run(config_name="config", task_function=task, overrides=[])


@contextlib.contextmanager
def errors_of_launcher() -> Iterator[None]:
    """What a launcher's own code raises, such as where there is no cluster, as a ConfigError.

    An error of a job, which has a cause in another process, stays what it is.
    """
    try:
        yield
    except RuntimeError as error:
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        if error.__cause__ is not None or not set(LAUNCHERS) & set(Path(place).parts):
            raise
        text = " ".join(str(error).split())
        raise ConfigError(f"hydra/launcher cannot start the jobs: {text}") from error


def run_sweep(overrides: Sequence[str], task: TaskFunction) -> None:
    """Run the jobs of a sweep that is checked already, as hydra.main does after composing each of
    them once more to see whether it can be.

    To be used while Hydra is initialized: see compose.composing.
    """
    sweepers: Any = Sweeper
    validate = sweepers.validate_batch_is_legal
    sweepers.validate_batch_is_legal = lambda *_: None
    try:
        words = [*overrides, "hydra.mode=MULTIRUN"]
        _hydra().multirun(config_name="config", task_function=task, overrides=words)
    finally:
        sweepers.validate_batch_is_legal = validate


def launch(overrides: Sequence[str], n: int, task: TaskFunction) -> list[Any]:
    """Start `task` n times by the launcher that the overrides choose, each with its own
    HydraConfig.get().job.num from 0 on; what they return, in order.

    To be used while Hydra is initialized: see compose.composing.
    """
    running = _hydra()
    composed = running.compose_config(
        config_name="config",
        overrides=[*overrides, "hydra.mode=MULTIRUN"],
        run_mode=RunMode.MULTIRUN,
    )
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(running.config_loader, Callbacks()),
        task_function=task,
        config=composed,
    )
    words = [list(composed.hydra.overrides.task) for _ in range(n)]
    return [job.return_value for job in launcher.launch(words, initial_job_idx=0)]


@contextlib.contextmanager
def current(composed: DictConfig) -> Iterator[None]:
    """What was composed is the job that Hydra runs, inside."""
    known = HydraConfig.instance()
    before = known.cfg
    known.set_config(composed)
    try:
        yield
    finally:
        known.cfg = before
