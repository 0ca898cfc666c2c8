"""How settings are declared, checked, read and explained.

@dataclass
class TrainConfig(Settings):
    group: ClassVar[str] = "train"
    steps: int = at_least(1000, 1)
    keep_last: int = at_least(2, 1, affects="nothing")  # no weight and no score depends on it
"""

import difflib
import functools
import importlib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml

from lm.system import files, foreign
from lm.system.errors import ConfigError, DamagedError, PointerError
from lm.system.text import literal, unfit

MISSING: Any = "???"  # what OmegaConf has for a value that must be given
# How OmegaConf begins an error about a text with `${`, whatever is wrong with it.
ABOUT_REFERENCE = re.compile(r"While dereferencing interpolation '.*?': ")
MAX_BYTES = 1 << 20  # of a YAML file of settings
MAX_DEPTH = 20  # of the mappings and lists in it
MOST = (1 << 63) - 1  # the highest integer that every file and library takes

# What a setting changes: the weights or the score, the last bits of both, or neither of them.
Affects = Literal["result", "rounding", "nothing"]
FROM_MOST: tuple[Affects, ...] = ("result", "rounding", "nothing")

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # reads 500 files in a second, not in ten


# -------------------------------------------------------------------------------- to declare them


def setting(default: Any, affects: Affects | None = None, **rules: object) -> Any:
    """A field of a Settings class; without `affects` it affects what its class says; path=True is
    for the name of a file or folder, or a list of them, in which `~` is the home directory."""
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


def at_least(default: float, low: float, high: float = MOST, affects: Affects | None = None) -> Any:
    """A number with a natural least value; `high` is the highest that works."""
    allowed = f"at least {low} and at most {high}"
    return setting(default, affects, low=low, high=high, allowed=allowed)


def zero_or(default: float, low: float, high: float, affects: Affects | None = None) -> Any:
    """A number in [low, high], or 0, which switches something off."""
    allowed = f"0, or from {low} to {high}"
    return setting(default, affects, low=low, high=high, allowed=allowed, zero=True)


def one_of(default: str, *others: str, affects: Affects | None = None) -> Any:
    """A word out of a short list, the default first."""
    return setting(default, affects, choices=(default, *others))


S = TypeVar("S", bound="Settings")


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
        for f in fields(cls):
            if f.name == name:
                return f.metadata.get("affects", cls.affects)
        return "result"

    @classmethod
    def variants(cls) -> list[type["Settings"]]:
        """The classes that settings of this group may be of: itself, or each that can be named."""
        return [cls]

    def __post_init__(self) -> None:
        problems = []
        for f in fields(self):
            if "path" in f.metadata:
                setattr(self, f.name, _expanded(getattr(self, f.name)))
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
    if "low" not in f.metadata:
        return ""
    if _is_finite(value) and f.metadata["low"] <= value <= f.metadata["high"]:
        return ""
    if value == 0 and f.metadata.get("zero"):
        return ""
    return f"{str(value)[:40]}: must be {f.metadata['allowed']}"


def _expanded(value: object) -> object:
    """A path, or each in a list of them, with the home directory for `~`."""
    if isinstance(value, list):
        return [_expanded(inner) for inner in value]
    return files.expanded(value) if isinstance(value, str) else value


def _is_finite(value: float) -> bool:
    if isinstance(value, int):
        return abs(value) <= MOST
    return math.isfinite(value)


# ------------------------------------------------------------------ to read and write all of them


def load(cls: type[S], source: Mapping | str | Path) -> S:
    """A checked `cls` from nested values or a saved YAML file; ConfigError names all that is wrong.

    A field of `cls` whose type is a Settings class is a group: a mapping of its own.
    """
    if isinstance(source, (str, Path)):
        source = read_yaml(Path(source))
    problems = unknown(cls, source, "", lambda key: _groups_with(cls, key))
    problems += unfit(source, "", lambda key: is_path(cls, key))
    groups: dict[str, Any] = {}
    for group, base in _groups(cls).items():
        try:
            groups[group] = load_group(base, source.get(group), base.group)
        except ConfigError as error:
            problems.append(str(error))
    if not problems:
        plain = {key: value for key, value in source.items() if key not in groups}
        try:
            checked = typed(cls, plain, "", without=groups)
            return cls(**groups, **{key: checked[key] for key in plain})
        except ConfigError as error:
            problems.append(str(error))
    # A value is repeated in what is wrong with it, and a stranger's may have any length.
    raise ConfigError("; ".join(p if len(p) < 500 else f"{p[:400]}..." for p in problems))


def save(settings: Settings, path: Path) -> None:
    """Write the settings as YAML that `load` reads back to equal ones."""
    files.atomic_write(path, to_yaml(settings))


def to_yaml(settings: Settings | Mapping[str, Any]) -> str:
    """The settings, or their nested values, as YAML."""
    from omegaconf import OmegaConf  # as long as all else takes together, and not for --help

    values = settings if isinstance(settings, Mapping) else asdict(settings)
    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


def effect(cls: type[Settings], key: str) -> Affects:
    """What a change of a setting of `cls`, or of all settings of a group of it, affects at most.

    An unknown key, such as one of another version of lm, counts as one that affects the result.
    """
    groups = _groups(cls)
    group, _, name = key.rpartition(".")
    effects: list[Affects] = []
    if key in groups:
        for variant in groups[key].variants():
            effects.extend(variant.effect(f.name) for f in fields(variant))
    elif group in groups:
        effects.extend(variant.effect(name) for variant in groups[group].variants())
    else:
        effects.append(cls.effect(key))
    return min(effects, key=FROM_MOST.index)


def fields_of(cls: type[Settings], key: str) -> list[Field]:
    """The fields that `key`, such as model.n_layer, can mean: one of each variant of its group."""
    group, _, name = key.rpartition(".")
    variants = [cls]
    if group:
        variants = _groups(cls)[group].variants() if group in _groups(cls) else []
    return [f for variant in variants for f in fields(variant) if f.name == name]


def is_path(cls: type[Settings], key: str) -> bool:
    return any("path" in f.metadata for f in fields_of(cls, key))


@functools.cache
def _groups(cls: type[Settings]) -> dict[str, type[Settings]]:
    """The fields of `cls` that are settings themselves, with their class."""
    kinds = {f.name: f.type for f in fields(cls)}
    return {
        n: kind
        for n, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, Settings)
    }


def load_group(base: type[Settings], values: object, group: str) -> Settings:
    """The checked settings of one group, whose keys begin with `group` on the command line."""
    if values is None or values == MISSING:
        raise ConfigError(f"{group} is missing: give {group}=NAME")
    if not isinstance(values, Mapping):
        raise ConfigError(f"{group}={values} is not a group of settings")
    cls = base.named(values.get("name")) if issubclass(base, Part) else base
    problems = unknown(cls, values, f"{group}.")
    if problems:
        raise ConfigError("; ".join(problems))
    return cls(**typed(cls, values, f"{group}."))


def _groups_with(cls: type[Settings], key: str) -> list[str]:
    """GROUP.KEY for each group that has such a setting: what `lr=0.1` may have meant."""
    found = []
    for group, base in _groups(cls).items():
        names = {f.name for variant in base.variants() for f in fields(variant)}
        if key in names - {"name"}:
            found.append(f"{group}.{key}")
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain values of a YAML file: no class, no alias and no great depth."""
    from omegaconf import OmegaConf

    if not path.exists():
        raise ConfigError(f"{path} does not exist")
    try:
        text = foreign.read_text(path, MAX_BYTES)
        plain_yaml(text)
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (DamagedError, PointerError) as error:
        raise ConfigError(str(error)) from None
    except Exception as error:  # YAML and OmegaConf have a dozen unrelated classes for bad files
        reason = str(error) or type(error).__name__
        raise ConfigError(f"{path} is not valid YAML: {reason.splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings")
    return {str(key): value for key, value in values.items()}


def plain_yaml(text: str) -> Any:
    """The values of a YAML text; raises YAMLError, or ValueError for what could explode.

    An alias (`*name`) repeats a part of the file, so that a few lines can mean a billion values,
    and a great depth ends the process in the C library: neither is allowed.
    """
    depth = 0
    for event in yaml.parse(text, Loader):  # no value is made yet
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"*{event.anchor} is an alias: write the value itself")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return Loader(text).get_single_data()


def flat_values(node: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys: {"model": {"n_layer": 4}} as {"model.n_layer": 4}."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= flat_values(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def typed(cls: type, values: Mapping, prefix: str, without: Collection[str] = ()) -> dict[str, Any]:
    """`values` converted to the types of the dataclass `cls`, its defaults filled in.

    Raises ConfigError for a wrong type, and for a missing value unless `without` names its key.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        node = OmegaConf.structured(cls)
        node.merge_with(literal(dict(values)))
        missing = OmegaConf.missing_keys(node)
        # A merge leaves the default in place of a ??? that was given.
        given = {key for key, value in values.items() if value == MISSING}
        required = sorted((missing | given) - set(without))
        if required:
            key = f"{prefix}{required[0]}"
            if key.endswith("]"):  # one of a list, which no word sets by itself
                raise ConfigError(f"{key} is ???, which stands for no value: give another text")
            raise ConfigError(f"{key} has no value: give {key}=VALUE")
        plain: Any = OmegaConf.to_container(node, resolve=True)
        return {f.name: plain[f.name] for f in fields(cls) if f.name not in missing}
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or getattr(error, "key", None) or ""
        reason = ABOUT_REFERENCE.sub("", str(error).splitlines()[0])
        raise ConfigError(f"{prefix}{key}: {reason}") from None


# ----------------------------------------------------------------------- to explain what is wrong


def unknown(
    cls: type, values: Mapping, prefix: str, elsewhere: Callable[[str], list[str]] | None = None
) -> list[str]:
    """One sentence for each key that `cls` does not have, with the nearest one it has.

    `elsewhere` names the full keys of other groups that the person may have meant.
    """
    known = [f.name for f in fields(cls)]
    problems = []
    for key in values:
        if key in known:
            continue
        near = elsewhere(key) if elsewhere else []
        if not near:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
        if near:
            hint = f"did you mean {' or '.join(prefix + name for name in near)}?"
        else:
            hint = f"known: {', '.join(known)}"
        problems.append(f"unknown setting {prefix}{key} ({hint})")
    return problems
