"""All that lm takes from inside Hydra, where its public interface has nothing for it."""

import argparse
import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lm.sweep.space import check_values
from lm.system.errors import ConfigError

MAX_ARMS = 10_000  # of a grid; each is composed and checked before the first one starts
# On 1.4 any version_base warns; on 1.3 leaving it out warns and changes the working directory.
VERSION: dict[str, str] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


def read_arguments(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Hydra's options and the overrides among the words, and the words that are neither."""
    return get_args_parser().parse_known_args(list(words))


def overrides_parser() -> OverridesParser:
    """A parser that knows the options of every group, which glob(*) asks for.

    To be used while Hydra is initialized: see compose.composing.
    """
    return OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())


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
