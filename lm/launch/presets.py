"""What can be chosen for a group of settings, such as model=gru, read from conf/.

    presets.names("model")           # ["bigram", ..., "transformer"]
    presets.read("model", "gpt2")    # TransformerConfig, {"context_len": 1024, "n_layer": 12, ...}

Hydra composes the same files; to list them it takes seconds.
"""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lm import config
from lm.settings import Settings
from lm.settings.reading import fields_of
from lm.settings.yaml_files import MAX_BYTES, plain_yaml
from lm.system import files, foreign
from lm.system.errors import ConfigError

CONFIG_DIR = "--config-dir"


def folder(name: str) -> Path:
    """conf/ or experiments/: inside the installed package, or beside it in the repository."""
    package = Path(__file__).parent.parent
    found = package / name
    return found if found.is_dir() else package.parent / name


def names(group: str, words: Sequence[str] = ()) -> list[str]:
    """The choices of a group, those in the folder of --config-dir among the words too."""
    if group == "experiment":
        return sorted(path.parent.name for path in folder("experiments").glob("*/run.yaml"))
    return sorted(_files(group, words))


def experiment_folder(name: str) -> Path:
    """The folder of an experiment, which may not be there yet; ConfigError for a path."""
    if name != Path(name).name:
        raise ConfigError(
            f"experiment={name}: give the name of a folder in {folder('experiments')}"
        )
    return folder("experiments") / name


def name_of_runs(experiment: Path) -> str:
    """What the runs of an experiment's folder are called: `name` of its run.yaml, or the folder."""
    path = experiment / "run.yaml"
    named = _values(path).get("name") if path.is_file() else None
    return str(named or experiment.name)


def chosen(group: str, words: Sequence[str] = ()) -> list[str]:
    """What the words choose for a group, several in a sweep; else what conf/config.yaml does."""
    for word in reversed(words):
        key, equals, value = word.partition("=")
        if equals and key.lstrip("+") == group:
            return value.split(",")
    main = _values(folder("conf") / "config.yaml")
    return [entry[group] for entry in main["defaults"] if group in entry and entry != "_self_"]


def read(group: str, name: str, words: Sequence[str] = ()) -> tuple[type[Settings], dict[str, Any]]:
    """The class of a choice, and the values that it sets; ConfigError lists the choices."""
    (field,) = fields_of(config.Config, group)
    cls = field.type
    assert isinstance(cls, type) and issubclass(cls, Settings)
    options = config.options(group) if group in config.PARTS else {}
    path = _files(group, words).get(name)
    if path is None:
        if name in options:  # of the user's own, without a preset
            return options[name], {}
        raise ConfigError(f"{group}={name}: choose {', '.join(names(group, words))}")
    values = _values(path)
    defaults = values.pop("defaults", [])
    for entry in defaults if isinstance(defaults, list) else ():
        for schema in entry.values() if isinstance(entry, dict) else ():
            cls = options.get(str(schema), cls)
    return cls, values


def _values(path: Path) -> dict[str, Any]:
    """What a preset sets; ConfigError for a file that is none."""
    try:
        values = plain_yaml(foreign.read_text(path, MAX_BYTES, links=True)) or {}
    except Exception as error:  # YAML has a dozen unrelated classes for bad files
        raise ConfigError(f"{path} is not valid YAML: {str(error).partition(chr(10))[0]}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no settings")
    return values


def _files(group: str, words: Sequence[str]) -> dict[str, Path]:
    folders = [folder("conf") / group]
    for word, after in zip_longest(words, words[1:], fillvalue=""):
        option, _, value = word.partition("=")
        if option in (CONFIG_DIR, "-cd"):
            folders.append(Path(files.expanded(value or after)) / group)
    return {path.stem: path for place in folders for path in place.glob("*.yaml")}
