"""Studies and spaces for the tests of lm.sweep."""

import json
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from lm.sweep import space, study


def search_space(*words, **params):
    return space.search_space(OverridesParser.create(), params, words)


def trials(root: Path) -> list:
    return study.open_study(root).trials


def states(root: Path) -> list[str]:
    return [t.state.name for t in trials(root)]


def new_study(root: Path, **about) -> object:
    root.mkdir(parents=True, exist_ok=True)
    record = {"journal": "optuna.journal", "study": "lm", "pruner": "none", "warmup": 0} | about
    (root / study.STUDY).write_text(json.dumps(record))
    return study.open_study(root)
