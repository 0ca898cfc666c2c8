"""The values of words as Hydra's grammar reads them; one that it cannot read is named in one line.

values.check(["seed=1,2", "model=gru"], is_sweep=True)
values.parse("seed=3").value()      # 3
"""

import dataclasses
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import HydraException

from lm import config
from lm.config import Config
from lm.launch import hydra_internals
from lm.settings.commands import TunerConfig
from lm.settings.reading import NOUNS, allowed_by, fields_of
from lm.system.errors import ConfigError

PARAMS = f"{TunerConfig.group}.params."  # for files alone
REASON = re.compile(r"while evaluating '.*?': (.*)")  # what a function such as range(a,b) says


def check(words: Sequence[str], is_sweep: bool) -> None:
    """ConfigError for a word that Hydra cannot read, or with values that nothing would try."""
    for word in words:
        override = parse(word)
        key = override.key_or_group
        if key.startswith(PARAMS):
            swept = key.removeprefix(PARAMS)
            raise ConfigError(f"{word}: leave {PARAMS} out; -m (--multirun) and {swept}= sweep")
        if not override.is_sweep_override():
            continue
        if not is_sweep:
            raise ConfigError(
                f"{word} gives several values, which is a sweep: add --multirun (-m) to lm.train; "
                f"one value is {allowed(key)}"
            )
        value = override.value()
        if isinstance(value, ChoiceSweep) and any(map(hydra_internals.is_sweep, value.list)):
            raise ConfigError(f"{word}: one sweep stands inside another; {_ways(key)}")


def parse(word: str) -> Override:
    """The word as Hydra reads it; ConfigError names it and what its setting takes."""
    key = word.partition("=")[0].lstrip("+")
    if not key:
        raise ConfigError(f"{word} is not key=value")
    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, AssertionError, RecursionError) as error:
        reason = REASON.search(" ".join(str(error).split()))
        said = reason[1] if reason else "this cannot be read"
        raise ConfigError(f"{word}: {said}; {_ways(key)}") from None


def allowed(key: str) -> str:
    """What a setting takes: `a whole number, from 0 to 9`."""
    if key in (*config.GROUPS, "experiment", "arm"):
        return "one of those that --help lists"
    group, _, name = key.rpartition(".")
    found = fields_of(Config, key)
    if group == TunerConfig.group:
        found = [f for f in dataclasses.fields(TunerConfig) if f.name == name]
    return next(filter(None, map(allowed_by, found)), "a number, a word or a list")


def _ways(key: str) -> str:
    """What may be typed for a setting, one value or several."""
    kind = allowed(key)
    if kind == NOUNS[str]:
        kind += f", between two pairs of quotes if it holds signs: '{key}=\"a=b\"'"
    return f"{key} takes {kind}; several are {key}=A,B under -m"
