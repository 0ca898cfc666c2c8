"""Settings out of plain values: read, checked, and what a key of them stands for.

cfg = reading.load(Config, {"model": {"name": "gru"}, ...})
reading.effect(Config, "train.keep_last")      # "nothing": no weight and no score depends on it
"""

import copy
import difflib
import functools
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

from lm.settings.declare import MISSING, MOST, Affects, Part, Settings, fields_by_name
from lm.settings.yaml_files import read_yaml
from lm.system import files
from lm.system.errors import ConfigError
from lm.system.text import literal, unfit

# How OmegaConf begins an error about a text with `${`, whatever is wrong with it.
ABOUT_REFERENCE = re.compile(r"While dereferencing interpolation '.*?': ")
NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
FROM_MOST: tuple[Affects, ...] = ("result", "rounding", "nothing")
MAX_KNOWN = 1000  # groups whose checked values are kept
S = TypeVar("S", bound=Settings)

_known: dict[tuple[type, str, str], dict[str, Any]] = {}


def load(cls: type[S], source: Mapping | str | Path) -> S:
    """A checked `cls` from nested values or a saved YAML file; ConfigError names all that is wrong.

    A field of `cls` whose type is a Settings class is a group: a mapping of its own.
    """
    if isinstance(source, (str, Path)):
        source = read_yaml(Path(source))
    problems = unknown(cls, source, "", lambda key: _groups_with(cls, key))
    problems += unfit(source, "", lambda key: has_rule(cls, key, "path"))
    groups: dict[str, Any] = {}
    for group, base in _groups(cls).items():
        try:
            groups[group] = load_group(base, source.get(group), base.group)
        except ConfigError as error:
            problems.append(str(error))
    if not problems:
        plain = {key: value for key, value in source.items() if key not in groups}
        try:
            checked = _typed_once(cls, plain, "", tuple(groups))
            return cls(**groups, **{key: checked[key] for key in plain})
        except ConfigError as error:
            problems.append(str(error))
    # A value is repeated in what is wrong with it, and a stranger's may have any length.
    raise ConfigError("; ".join(p if len(p) < 500 else f"{p[:400]}..." for p in problems))


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
    found = [fields_by_name(variant).get(name) for variant in variants]
    return [f for f in found if f is not None]


def allowed_by(f: Field) -> str:
    """What a setting takes: `a whole number, from 0 to 9`; "" if no few words say it."""
    if "choices" in f.metadata:
        return " or ".join(f.metadata["choices"])
    noun = NOUNS.get(f.type, "") if isinstance(f.type, type) else ""
    if f.type in (int, float) and "allowed" in f.metadata:
        limits = f.metadata["allowed"].removesuffix(f" and at most {MOST}")
        return f"{noun}, {limits}"
    return "a list, such as [a,b]" if f.type == list[str] else noun


def has_rule(cls: type[Settings], key: str, rule: str) -> bool:
    """Whether a setting of `cls` is declared with this rule, such as path."""
    return any(rule in f.metadata for f in fields_of(cls, key))


def public(
    values: Mapping[str, object], is_path: Callable[[str], bool], prefix: str = ""
) -> dict[str, Any]:
    """Settings, nested or flat, as they may leave this machine: see `files.public` of a path.

    `is_path` says of a key whether its value names a file or folder.
    """
    found = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            value = public(value, is_path, f"{key}.")
        elif is_path(key) and isinstance(value, list):
            value = [files.public(str(path)) for path in value]
        elif is_path(key) and isinstance(value, str):
            value = files.public(value)
        found[name] = value
    return found


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
    return cls(**_typed_once(cls, values, f"{group}."))


def _typed_once(
    cls: type[Settings], values: Mapping, prefix: str, without: Collection[str] = ()
) -> dict[str, Any]:
    """`typed`, which a sweep or a report asks for the same values again and again."""
    key = (cls, prefix, repr(values))  # which tells 1, 1.0, True and "1" apart
    if key not in _known:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[key] = typed(cls, values, prefix, without)
    return copy.deepcopy(_known[key])


def _groups_with(cls: type[Settings], key: str) -> list[str]:
    """GROUP.KEY for each group that has such a setting: what `lr=0.1` may have meant."""
    found = []
    for group, base in _groups(cls).items():
        names = {f.name for variant in base.variants() for f in fields(variant)}
        if key in names - {"name"}:
            found.append(f"{group}.{key}")
    return found


def flat_values(node: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys: {"model": {"n_layer": 4}} as {"model.n_layer": 4}."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            flat |= flat_values(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@functools.cache
def _schema(cls: type) -> Any:
    """What OmegaConf checks settings of the dataclass `cls` against; to be copied, never changed.

    To make one takes four times as long as to copy it.
    """
    from omegaconf import OmegaConf

    return OmegaConf.structured(cls)


def typed(cls: type, values: Mapping, prefix: str, without: Collection[str] = ()) -> dict[str, Any]:
    """`values` converted to the types of the dataclass `cls`, its defaults filled in.

    Raises ConfigError for a wrong type, and for a missing value unless `without` names its key.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        node = copy.deepcopy(_schema(cls))
        try:
            node.merge_with(literal(dict(values)))
        except OverflowError:  # a whole number that no float holds, where a fraction is allowed
            node = copy.deepcopy(_schema(cls))
            node.merge_with(literal(_in_reach(dict(values))))
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
        takes = [allowed_by(f) for f in fields(cls) if f.name == key]
        way_out = f"; give {takes[0]}" if takes and takes[0] else ""
        raise ConfigError(f"{prefix}{key}: {reason}{way_out}") from None


def _in_reach(value: object) -> object:
    """The values, nested or not, with an infinity for each whole number that no float holds."""
    if isinstance(value, dict):
        return {key: _in_reach(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_in_reach(inner) for inner in value]
    if type(value) is int and abs(value) > sys.float_info.max:
        return math.inf if value > 0 else -math.inf
    return value


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
