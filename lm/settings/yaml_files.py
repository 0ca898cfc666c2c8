"""Settings in a YAML file, which a stranger may have written: plain values, and nothing else.

values = yaml_files.read_yaml(Path("outputs/runs/.../config.resolved.yaml"))
yaml_files.save(cfg, Path("config.resolved.yaml"))
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from lm.settings.declare import Settings
from lm.system import files, foreign
from lm.system.errors import ConfigError, DamagedError, PointerError

MAX_BYTES = 1 << 20  # of a YAML file of settings
MAX_DEPTH = 20  # of the mappings and lists in it
# One key with its values: a line that begins with it, and those that are indented or begin a list.
BLOCK = re.compile(r"^([a-z_]+:(?: [^\n]*)?\n(?:(?: +|- )[^\n]*\n)*)", re.MULTILINE)
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # reads 500 files in a second, not in ten


def save(settings: Settings, path: Path) -> None:
    """Write the settings as YAML that `load` reads back to equal ones."""
    files.atomic_write(path, to_yaml(settings))


def to_yaml(settings: Settings | Mapping[str, object]) -> str:
    """The settings, or their nested values, as YAML."""
    from omegaconf import OmegaConf  # as long as all else takes together, and not for --help

    values = settings if isinstance(settings, Mapping) else asdict(settings)
    return OmegaConf.to_yaml(OmegaConf.create(dict(values)))


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
    values: dict[str, Any] = {}
    blocks = BLOCK.split(text)
    if not text or any(blocks[::2]) or "&" in text:  # other lines, or a name for all of it
        return _plain(text)
    try:
        for block in blocks[1::2]:  # the runs of a sweep differ in one or two of them
            values |= _copied(_plain_once(block))
    except (yaml.YAMLError, ValueError, TypeError):  # the whole says where
        return _plain(text)
    return values


def _copied(value: object) -> Any:
    """A copy of what a YAML text holds; `copy.deepcopy` takes five times as long."""
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_copied(part) for part in value]
    return value


@functools.lru_cache(maxsize=1000)
def _plain_once(block: str) -> Any:
    return _plain(block)


def _plain(text: str) -> Any:
    """`plain_yaml` of a text that is read as a whole."""
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
