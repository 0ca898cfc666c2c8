"""How settings are declared, checked, read and explained."""

import difflib
import importlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm.system import files
from lm.system.errors import ConfigError, DamagedError

MAX_BYTES, MAX_DEPTH = 1 << 20, 20  # of a YAML file of settings


Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # reads 500 files in a second, not in ten


def within(default: float, low: float, high: float = math.inf) -> Any:
    """A number that must be finite and lie in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})


def one_of(default: str, *others: str) -> Any:
    """A word out of a short list, the default first."""
    return field(default=default, metadata={"choices": (default, *others)})


@dataclass
class Settings:
    """What every group of settings shares: the check of its ranges and choices."""

    group: ClassVar[str] = ""  # the prefix of its keys: "model" in model.n_layer

    def key(self, name: str) -> str:
        return f"{self.group}.{name}" if self.group else name

    def __post_init__(self) -> None:
        problems = []
        for f in fields(self):
            value, rule = getattr(self, f.name), f.metadata
            if "choices" in rule and value not in rule["choices"]:
                problems.append(
                    f"{self.key(f.name)}={value}: choose {' or '.join(rule['choices'])}"
                )
            if "low" in rule and not (_finite(value) and rule["low"] <= value <= rule["high"]):
                limit = f"from {rule['low']} to {rule['high']}"
                limit = f"at least {rule['low']}" if rule["high"] == math.inf else limit
                problems.append(f"{self.key(f.name)}={str(value)[:40]}: must be {limit}")
        if problems:
            raise ConfigError("; ".join(problems))


@dataclass
class Part(Settings):
    """Settings that name the thing they build; `name` says which dataclass a saved config means."""

    builds: ClassVar[str] = ""  # "module:function or class"; no field, so no file can choose it
    name: str = MISSING

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Import what these settings are for, now and not earlier, and call it with them."""
        module, _, attribute = self.builds.partition(":")
        return getattr(importlib.import_module(module), attribute)(self, *args, **kwargs)


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain values of a YAML file: no class, no alias and no great depth."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist")
    try:
        text = files.read_text(path, MAX_BYTES)
        plain_yaml(text)
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except DamagedError as error:
        raise ConfigError(str(error)) from None
    except Exception as error:  # YAML and OmegaConf have a dozen unrelated classes for bad files
        raise ConfigError(f"{path} is not valid YAML: {_first_line(error)}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings")
    return values


def plain_yaml(text: str) -> Any:
    """The values of a YAML text; raises YAMLError, or ValueError for what could explode.

    An alias (`*name`) repeats a part of the file, so that a few lines can mean a billion values,
    and a great depth ends the process in the C library: neither is allowed.
    """
    depth = 0
    for event in yaml.parse(text, Loader):  # no value is made yet
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"*{event.anchor} is an alias: write the value itself")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return Loader(text).get_single_data()


def flat_values(node: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    rows: dict[str, Any] = {}
    for key, value in node.items():
        deeper = isinstance(value, dict)
        rows |= flat_values(value, f"{prefix}{key}.") if deeper else {f"{prefix}{key}": value}
    return rows


def typed(cls: type, values: Mapping, prefix: str, without: Collection[str] = ()) -> dict[str, Any]:
    """`values` converted to the types of the dataclass `cls`, its defaults filled in.

    Raises ConfigError for a wrong type, and for a missing value unless `without` names its key.
    """
    try:
        node = OmegaConf.merge(OmegaConf.structured(cls), dict(values))
        missing = sorted(OmegaConf.missing_keys(node) - set(without))
        if missing:
            raise ConfigError(f"{prefix}{missing[0]} has no value: give {prefix}{missing[0]}=VALUE")
        return {f.name: node[f.name] for f in fields(cls) if not OmegaConf.is_missing(node, f.name)}
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or getattr(error, "key", None) or ""
        raise ConfigError(f"{prefix}{key}: {str(error).splitlines()[0]}") from None


def _finite(value: float) -> bool:
    return abs(value) < 1 << 63 if isinstance(value, int) else math.isfinite(value)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def unknown(
    cls: type, values: Mapping, prefix: str, elsewhere: Callable[[str], list[str]] | None = None
) -> list[str]:
    """One sentence for each key that `cls` does not have, with the nearest one it has.

    `elsewhere` names the full keys of other groups that the person may have meant.
    """
    known = [f.name for f in fields(cls)]
    problems = []
    for key in values:
        if key not in known:
            inside = elsewhere(key) if elsewhere else []
            near = inside or difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f" (known: {', '.join(known)})"
            if near:
                hint = f" (did you mean {' or '.join(prefix + name for name in near)}?)"
            problems.append(f"unknown setting {prefix}{key}{hint}")
    return problems
