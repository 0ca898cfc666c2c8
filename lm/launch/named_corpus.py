"""The corpus that one word of train.also or lm.evaluate names: a preset, or else files.

named("shakespeare", own)       # ShakespeareConfig(), or what conf/corpus/ has by that name
named("notes/*.md", own)        # FilesConfig(path="notes/*.md", near_duplicates="keep")
short_name("notes/*.md")        # "notes"
"""

import os
import re
from pathlib import Path

from lm import config
from lm.launch import presets
from lm.settings.reading import load_group
from lm.system import paths


def named(word: str, own: config.CorpusConfig, key: str = "corpus") -> config.CorpusConfig:
    """The corpus that `word` names: one of ours, a preset of conf/corpus/ or a class of the user's,
    or else files; empty: the run's own.

    Files are taken as they are, near-duplicates and all. Raises ValueError for a word that is
    neither; `key` is the setting it comes from.
    """
    if not word:
        return own
    nothing_alone = ("mix", "hub", "shards")  # without further settings
    choices = dict.fromkeys([*config.options("corpus"), *presets.names("corpus")])
    known = [name for name in choices if name not in nothing_alone]
    if word in known and word != "files":
        cls, values = presets.read("corpus", word)
        values = {"name": vars(cls).get("name"), **values}
        chosen = load_group(config.CorpusConfig, values, "corpus")
        assert isinstance(chosen, config.CorpusConfig)
        if chosen.name in ("mix", "shards"):
            raise ValueError(f"{key}={word} is of several texts, {chosen.name}: name one of them")
        return chosen
    if not os.path.exists(paths.expanded(word)) and not any(c in word for c in "*?["):
        raise ValueError(
            f"{key}={word} is neither a corpus ({', '.join(known)}) nor a file that exists"
        )
    return config.FilesConfig(path=word, near_duplicates="keep")


def short_name(word: str) -> str:
    """The word as a part of a metric's name: of a path the last part that is no pattern."""
    parts = [part for part in Path(word).parts if not any(c in part for c in "*?[")]
    stem = Path(parts[-1]).stem if parts else ""
    return re.sub(r"[^\w-]+", "_", stem).strip("_")[:40] or "text"
