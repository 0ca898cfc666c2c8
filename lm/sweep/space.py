"""What a search is: its settings, the words that stay, and what the others are drawn from.

    fixed, space = search_space(parser, {}, ["seed=0", "optimizer.lr=interval(1e-4,3e-2)"])

Hydra's own grammar says what is searched. Needs the extra `sweep`.
"""

import itertools
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from lm import config
from lm.settings.commands import TunerConfig
from lm.settings.reading import typed
from lm.system.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    Spread = CategoricalDistribution | FloatDistribution | IntDistribution

Space = Mapping[str, "Spread"]  # what Optuna draws from, by the key of the setting


def tuner_settings(values: Mapping[str, object]) -> TunerConfig:
    """The settings of a search as Hydra composed them; ConfigError names what is wrong."""
    given = {key: value for key, value in values.items() if key != "_target_"}
    given["params"] = given.get("params") or {}
    return TunerConfig(**typed(TunerConfig, given, f"{TunerConfig.group}."))


def load_optuna() -> ModuleType:
    """The module optuna, loaded when it is needed; ConfigError says how to install it."""
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "hydra/sweeper=lm needs Optuna: pip install optuna (grids need nothing)"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def search_space(
    parser: OverridesParser, params: Mapping[str, object] | None, arguments: Sequence[str]
) -> tuple[list[str], Space]:
    """The words that stay, and Optuna's distribution of each setting that is searched.

    interval(a,b) is a real number, int(interval(a,b)) and range(a,b) whole ones, tag(log, ...)
    draws on a logarithmic scale, a,b,c is a choice. `params` come first, the command line wins.
    """
    words = [f"{key}={value}" for key, value in (params or {}).items()]
    overrides: dict[str, Override] = {}
    for override in parser.parse_overrides([*words, *arguments]):
        key = override.get_key_element()
        overrides.pop(key, None)  # the last one of a key wins, and takes its place too
        overrides[key] = override
    fixed = []
    space = {}
    for key, override in overrides.items():
        if not override.is_sweep_override():
            fixed.append(override.input_line)
        elif key == "seed":
            raise ConfigError(
                f"{override.input_line}: a seed is not tuned; give one, and repeat the best "
                "settings with seed=0,1,2"
            )
        else:
            check_values(override)
            space[key] = distribution(override)
    if not space:
        raise ConfigError(
            "nothing to tune: give at least one setting as interval(a,b), range(a,b) or a,b,c"
        )
    return fixed, space


def check_values(override: Override) -> None:
    """ConfigError for a word that is swept over no value at all, or over endlessly many."""
    word = override.input_line
    value = override.value()
    if isinstance(value, RangeSweep) and value.step == 0:
        raise ConfigError(f"{word}: a step of 0 never ends")
    if not override.is_discrete_sweep():
        return
    if next(iter(override.sweep_string_iterator()), None) is None:
        hint = "it matches no option"
        if isinstance(value, RangeSweep):
            hint = "range(a,b) counts from a to below b"
        raise ConfigError(f"{word} gives no value, so nothing would run: {hint}")


def distribution(override: Override) -> "Spread":
    """What Optuna draws the value of this setting from."""
    try:
        return _distribution(override)
    except ValueError as error:  # such as an interval that ends before it starts
        raise ConfigError(f"{override.input_line}: {error}") from None


def _distribution(override: Override) -> "Spread":
    load_optuna()
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        low = value.start
        high = value.end
        is_log = "log" in value.tags
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=is_log)
        assert low is not None and high is not None, "Hydra's grammar asks for both"
        return FloatDistribution(float(low), float(high), log=is_log)
    if isinstance(value, RangeSweep) and isinstance(value.step, int) and value.stop is not None:
        numbers = range(int(value.start or 0), int(value.stop), value.step)
        if len(numbers) and value.step > 0 and numbers[0] == value.start:
            return IntDistribution(numbers[0], numbers[-1], step=value.step)
    return CategoricalDistribution(tuple(override.sweep_string_iterator()))


def corners(fixed: Sequence[str], space: Space) -> list[list[str]]:
    """Jobs with every setting at its first and at its last value, to check before the first one."""
    from optuna.distributions import CategoricalDistribution

    first = list(fixed)
    last = list(fixed)
    for key, spread in space.items():
        if isinstance(spread, CategoricalDistribution):
            first.append(f"{key}={spread.choices[0]}")
            last.append(f"{key}={spread.choices[-1]}")
        else:
            first.append(f"{key}={spread.low}")
            last.append(f"{key}={spread.high}")
    return [first, last]


def grid(space: Space) -> list[dict[str, Any]]:
    """Every point of the space; ConfigError if a setting of it is an interval."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    axes = []
    for key, spread in space.items():
        if isinstance(spread, CategoricalDistribution):
            axes.append(spread.choices)
        elif isinstance(spread, IntDistribution) and not spread.log:
            axes.append(range(spread.low, spread.high + 1, spread.step))
        else:
            raise ConfigError(
                f"{key} is an interval: sampler=grid takes a,b,c or range(a,b); or use sampler=tpe"
            )
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]


# ------------------------------------------------------------------- whether two are the same


def deciding(words: Sequence[str]) -> list[str]:
    """Those of the words that decide a score, as key=value, in order."""
    kept = []
    for word in words:
        key, _, value = word.partition("=")
        key = key.strip().lstrip("+")
        if not key.startswith("hydra") and not config.keeps_result(key):
            kept.append(f"{key}={value.strip()}")
    return sorted(kept)


def kinds(space: Space) -> dict[str, list[Any]]:
    """The choices, or the kind of number, of each searched setting; an interval may be another."""
    from optuna.distributions import CategoricalDistribution

    found: dict[str, list[Any]] = {}
    for key, spread in space.items():
        if isinstance(spread, CategoricalDistribution):
            found[key] = list(spread.choices)
        else:
            found[key] = [type(spread).__name__, spread.log]
    return found
