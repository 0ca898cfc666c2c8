"""How settings are declared, with their ranges and choices, and what they build.

@dataclass
class TrainConfig(Settings):
    group: ClassVar[str] = "train"
    steps: int = at_least(1000, 1)
    keep_last: int = at_least(2, 1, affects="nothing")  # no weight and no score depends on it
"""

import contextlib
import functools
import importlib
import math
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Literal

from lm.system import files
from lm.system.errors import ConfigError

MISSING: Any = "???"  # what OmegaConf has for a value that must be given
MOST = (1 << 63) - 1  # the highest integer that every file and library takes

# What a setting changes: the weights or the score, the last bits of both, or neither of them.
Affects = Literal["result", "rounding", "nothing"]


def setting(default: object, affects: Affects | None = None, **rules: object) -> Any:
    """A field of a Settings class; without `affects` it affects what its class says; path=True is
    for the name of a file or folder, or a list of them, in which `~` is the home directory;
    unnamed=True for what says when a run is scored, and not what it is: no report names it so."""
    metadata = rules if affects is None else {**rules, "affects": affects}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def within(
    default: float,
    low: float,
    high: float = math.inf,
    affects: Affects | None = None,
    below: bool = False,
) -> Any:
    """A number that must be finite and lie in [low, high], or with `below` in [low, high)."""
    allowed = f"at least {low}" if high == math.inf else f"from {low} to {high}"
    if below:
        high = math.nextafter(high, low)
        allowed += ", and below it"
    return setting(default, affects, low=low, high=high, allowed=allowed)


def at_least(
    default: float, low: float, high: float = MOST, affects: Affects | None = None, **rules: object
) -> Any:
    """A number with a natural least value; `high` is the highest that works."""
    allowed = f"at least {low} and at most {high}"
    return setting(default, affects, low=low, high=high, allowed=allowed, **rules)


def zero_or(default: float, low: float, high: float, affects: Affects | None = None) -> Any:
    """A number in [low, high], or 0, which switches something off."""
    allowed = f"0, or from {low} to {high}"
    return setting(default, affects, low=low, high=high, allowed=allowed, zero=True)


def or_word(number: Field, word: str, whole: bool) -> Any:
    """A number as `number`, a field, declares it, or a word: of a form such as `auto` or `20x`.

    `word` is that form, in which 20 stands for any number above 0; such a setting has the type Any.
    """
    rules = {**number.metadata, "word": word, "whole": whole}
    rules["allowed"] = f"{word}, or {rules['allowed']}"
    return field(default=number.default, metadata=rules)


def one_of(default: str, *others: str, affects: Affects | None = None) -> Any:
    """A word out of a short list, the default first."""
    return setting(default, affects, choices=(default, *others))


@functools.cache
def fields_by_name(cls: type["Settings"]) -> dict[str, Field]:
    """The fields of a class; a report asks for each key of each of its runs."""
    return {f.name: f for f in fields(cls)}


@dataclass
class Settings:
    """What every group of settings shares: the check of its ranges and choices."""

    group: ClassVar[str] = ""  # the prefix of its keys: "model" in model.n_layer
    affects: ClassVar[Affects] = "result"  # of the fields that do not say it themselves

    @classmethod
    def key(cls, name: str) -> str:
        """The name as the command line has it: model.n_layer."""
        return f"{cls.group}.{name}" if cls.group else name

    @classmethod
    def effect(cls, name: str) -> Affects:
        """What a change of this field affects; a field that is not known affects the result."""
        field = fields_by_name(cls).get(name)
        return "result" if field is None else field.metadata.get("affects", cls.affects)

    @classmethod
    def variants(cls) -> list[type["Settings"]]:
        """The classes that settings of this group may be of: itself, or each that can be named."""
        return [cls]

    def __post_init__(self) -> None:
        problems = []
        for f in fields(self):
            if "path" in f.metadata:
                setattr(self, f.name, _expanded(getattr(self, f.name)))
            if "word" in f.metadata:
                setattr(self, f.name, _as_number(f, getattr(self, f.name)))
            problem = _broken_rule(f, getattr(self, f.name))
            if problem:
                problems.append(f"{self.key(f.name)}={problem}")
        if problems:
            raise ConfigError("; ".join(problems))


@dataclass
class Part(Settings):
    """Settings that name the thing they build; `name` says which dataclass a saved config means."""

    builds: ClassVar[str] = ""  # "module:function or class"; no field, so no file can choose it
    name: str = MISSING

    @classmethod
    def options(cls) -> dict[str, type["Part"]]:
        """The parts of this group by name: {"transformer": TransformerConfig, ...}."""
        return {part.name: part for part in cls.__subclasses__()}

    @classmethod
    def variants(cls) -> list[type[Settings]]:
        return list(cls.options().values())

    @classmethod
    def named(cls, name: object) -> type["Part"]:
        """The part of this name; ConfigError lists those that there are."""
        known = cls.options()
        if not isinstance(name, str) or name not in known:
            own = "or give import=MODULE of your own"
            raise ConfigError(f"{cls.group}.name={name}: choose {', '.join(known)}, {own}")
        return known[name]

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Import what these settings are for, now and not earlier, and call it with them."""
        return self.target()(self, *args, **kwargs)

    def target(self) -> Callable[..., Any]:
        """What `builds` names; ConfigError where there is no such thing."""
        name, _, attribute = self.builds.partition(":")
        wrong = f"{self.group}={self.name}: builds = {self.builds!r}"
        if not name or not attribute:
            raise ConfigError(f'{wrong}: give "module:function or class"')
        try:
            found = getattr(importlib.import_module(name), attribute, None)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise
            raise ConfigError(f"{wrong}: there is no module {error.name}") from None
        if not callable(found):
            raise ConfigError(f"{wrong}: {name} has no function or class {attribute}")
        return found


def _broken_rule(f: Field, value: Any) -> str:
    """The value and the rule of its field that it breaks, "" if it breaks none."""
    choices = f.metadata.get("choices")
    if choices and value not in choices:
        return f"{value}: choose {' or '.join(choices)}"
    if "low" not in f.metadata or _is_word(f, value):
        return ""
    if "word" in f.metadata and (isinstance(value, bool) or not isinstance(value, (int, float))):
        return f"{str(value)[:40]}: must be {f.metadata['allowed']}"
    if f.metadata.get("whole") and not isinstance(value, int):
        return f"{value}: must be {f.metadata['allowed']}"
    if _is_finite(value) and f.metadata["low"] <= value <= f.metadata["high"]:
        return ""
    if value == 0 and f.metadata.get("zero"):
        return ""
    return f"{str(value)[:40]}: must be {f.metadata['allowed']}"


def _as_number(f: Field, value: object) -> object:
    """A text that is a number as one, a whole number as a float where fractions are allowed."""
    if isinstance(value, str) and not _is_word(f, value):
        try:
            value = int(value) if f.metadata["whole"] else float(value)
        except ValueError:
            return value
    if type(value) is int and not f.metadata["whole"]:
        with contextlib.suppress(OverflowError):  # one beyond all floats is beyond the limits, too
            return float(value)
    return value


def _is_word(f: Field, value: object) -> bool:
    """Whether the value is a word of the form that the field allows beside numbers."""
    form = f.metadata.get("word")
    if not form or not isinstance(value, str):
        return False
    pattern = re.escape(form).replace("20", r"(?!0+(\.0*)?x)\d{1,6}(\.\d{1,6})?")
    return re.fullmatch(pattern, value) is not None


def _expanded(value: object) -> object:
    """A path, or each in a list of them, with the home directory for `~`."""
    if isinstance(value, list):
        return [_expanded(inner) for inner in value]
    return files.expanded(value) if isinstance(value, str) else value


def _is_finite(value: float) -> bool:
    if isinstance(value, int):
        return abs(value) <= MOST
    return math.isfinite(value)
