"""Every key of a command with its meaning, limits and default: what --help and completion tell.

    for section in keys.sections("train", ["model=gru"]): ...

All of it stands where a setting is declared: the default and the limits are those of its field, the
meaning is the comment beside it or above it, read from the source.
"""

import ast
import dataclasses
import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lm import config
from lm.launch import presets
from lm.settings import MISSING, MOST, Settings, commands

SWEEPER = "hydra/sweeper"


@dataclasses.dataclass
class Key:
    """One setting as --help shows it."""

    name: str  # model.n_layer
    default: str | None  # as it would be typed; None: it is left out
    meaning: str
    rule: str = ""  # "from 1 to 1024"
    values: list[str] = dataclasses.field(default_factory=list)  # what it may be, if that is a list
    is_text: bool = False  # so it may be the name of a file


@dataclasses.dataclass
class Section:
    """The keys of one choice of a group, such as model=gru; without a group, a command's own."""

    keys: list[Key]
    group: str = ""
    choice: str = ""
    others: list[str] = dataclasses.field(default_factory=list)  # what else can be chosen


IMPORT = Key("import", "", "a module with parts of your own, such as my_models.mine", is_text=True)


def sections(command: str, words: Sequence[str] = ()) -> list[Section]:
    """The keys of a command, those of a run for the choices that the words make."""
    cls = commands.COMMANDS[command]
    own = [*of_class(cls), IMPORT]
    for key in own:
        if key.name == "experiment":
            key.values = presets.names("experiment")
            key.rule = ", ".join(key.values)
    found = [Section(own)]
    if command == "train":
        own += of_class(config.Config)
        own.sort(key=lambda key: key.name)
    if takes_settings(command):
        given = {word.partition("=")[0] for word in words}
        for group in config.GROUPS:
            if command == "train" or group in given:
                found += _of_group(group, words)
    if command == "train":
        found.append(Section(of_class(commands.TunerConfig), SWEEPER, "lm", ["basic"]))
    return found


def takes_settings(command: str) -> bool:
    """Whether the words of a command may be settings of a run."""
    fields = dataclasses.fields(commands.COMMANDS[command])
    return "overrides" in (field.name for field in fields)


def _of_group(group: str, words: Sequence[str]) -> list[Section]:
    """A section for each choice of a group, of which a sweep has several."""
    found = []
    for choice in presets.chosen(group, words):
        cls, values = presets.read(group, choice, words)
        others = [name for name in presets.names(group, words) if name != choice]
        found.append(Section(of_class(cls, values), group, choice, others))
    return found


def of_class(cls: type[Settings], values: Mapping[str, object] | None = None) -> list[Key]:
    """The keys of a class of settings; `values` are the defaults of a preset."""
    found = []
    for f in dataclasses.fields(cls):
        is_group = isinstance(f.type, type) and issubclass(f.type, Settings)
        is_choice = f.name == "name" and issubclass(cls, config.Part)
        if is_group or is_choice or f.name == "overrides":
            continue
        default = f.default
        if f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        default = (values or {}).get(f.name, default)
        meaning = _meaning(cls, f.name)
        if default == MISSING:
            meaning = f"{meaning}; must be given"
        allowed = list(f.metadata.get("choices", ()))
        is_text = not allowed and f.type in (str, str | None, list[str], Any)
        if f.type is bool:
            allowed = ["true", "false"]
        found.append(Key(cls.key(f.name), typed(default), meaning, _rule(f), allowed, is_text))
    return found


def typed(value: object) -> str | None:
    """A value as it is typed on the command line; empty for one that must be given."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return None
    return "" if value == MISSING else str(value)


def _rule(field: dataclasses.Field) -> str:
    *others, last = field.metadata.get("choices", ("",))
    if others:
        return f"{', '.join(others)} or {last}"
    return field.metadata.get("allowed", "").removesuffix(f" and at most {MOST}")


def _meaning(cls: type[Settings], name: str) -> str:
    """What the comment of a setting says, or that of the class from which it is inherited."""
    for owner in cls.__mro__:
        text = _comments(owner.__module__).get((owner.__name__, name))
        if text:
            return text
    return ""


@functools.cache
def _comments(module: str) -> dict[tuple[str, str], str]:
    """The comment of each field in the classes of a module, by class and field."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):  # there is none: an interpreter's own module, or no file
        return {}
    lines = source.splitlines()
    found = {}
    for owner in ast.parse(source).body:
        if not isinstance(owner, ast.ClassDef):
            continue
        for item in owner.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                found[owner.name, item.target.id] = _comment(lines, item)
    return found


def _comment(lines: Sequence[str], item: ast.AnnAssign) -> str:
    """What stands above a field and behind it."""
    texts = []
    above = item.lineno - 2  # the line before it, counted from 0
    while lines[above].lstrip().startswith("#"):
        texts.insert(0, lines[above].strip())
        above -= 1
    assert item.end_lineno is not None
    behind = lines[item.end_lineno - 1].encode()[item.end_col_offset :].decode().strip()
    if behind.startswith("#"):
        texts.append(behind)
    return " ".join(text.strip("# ") for text in texts).removesuffix(".")
