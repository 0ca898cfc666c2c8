"""`resume=DIR`: a run that goes on, with another budget or with what changes no result; and
`hydra.sweep.dir=latest`: a sweep that goes on.

job = resume.job(["resume=latest", "train.steps=3000", "track.mode=off"])
words = resume.named_sweep(["-m", "seed=0,1", "hydra.sweep.dir=latest"])
"""

from pathlib import Path

from lm import config
from lm.launch import compose, jobs, values
from lm.launch.jobs import Job
from lm.launch.words import as_typed, read
from lm.record import ownership
from lm.record.find import find_run, walk
from lm.system import files
from lm.system.errors import ConfigError

WORD = "resume="
SWEEP_WORD = "hydra.sweep.dir="
SWEEP_FILE = "multirun.yaml"  # Hydra writes it into the directory at each start of a sweep
TRUST = "trust="  # true: a run from elsewhere may do what its settings say, see lm/record/ownership


def is_resumed(words: list[str]) -> bool:
    return any(word.startswith(WORD) for word in words)


def named_sweep(words: list[str]) -> list[str]:
    """The words of a sweep, with `latest` replaced by the directory of the one started last.

    ConfigError if there is none. ./latest is a directory of that name.
    """
    if not {"-m", "--multirun"} & set(words):
        return words
    found = []
    for word in words:
        is_latest = word.startswith(SWEEP_WORD) and read(word) == "latest"
        found.append(f"{SWEEP_WORD}{latest_sweep()}" if is_latest else word)
    return found


def latest_sweep(word: str = SWEEP_WORD) -> Path:
    """The directory under outputs/ in which a sweep was started last; `word` asked for it."""
    found = []
    for folder, below, names in walk("outputs"):
        if SWEEP_FILE in names:
            found.append(folder / SWEEP_FILE)
            below.clear()
        elif config.RESOLVED in names:
            below.clear()
    if not found:
        raise ConfigError(
            f"{word}latest: there is no sweep under outputs/; leave it out to start one"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent


def job(words: list[str]) -> Job:
    """The job of a run's saved configuration, in its own directory, with the changes of the words.

    Raises ConfigError for a change that would make another run.
    """
    names = [word.removeprefix(WORD) for word in words if word.startswith(WORD)]
    changes: dict[str, object] = {}
    for word in words:
        if not word.startswith((WORD, TRUST)):
            key = _single_setting(word, names[-1])
            changes[key] = _value(word, key)
    out = find_run(names[-1])
    files.no_links(out)
    nested = config.saved_values(out / config.RESOLVED)
    saved = config.load(nested)  # now, or nested["train"] may be anything
    for key, value in changes.items():
        *groups, name = key.split(".")
        settings = nested
        for group in groups:  # a mapping such as corpus.weights is one, too
            settings = settings.get(group)
            if not isinstance(settings, dict):
                raise ConfigError(f"resume={names[-1]}: there is no setting {key}")
        settings[name] = value
    cfg = config.load(nested)
    for key, text in jobs.changes(saved, cfg).items():
        if not jobs.may_change(key):
            raise ConfigError(f"resume={names[-1]}: {text}; another {key} makes another run")
    compose.check_one_budget(changes, cfg)
    ownership.check_start(out, saved, cfg, changes, _is_trusted(words))
    return Job(cfg, out, words)


def _is_trusted(words: list[str]) -> bool:
    """Whether trust=true is among the words."""
    given = [word.removeprefix(TRUST).lower() for word in words if word.startswith(TRUST)]
    if not set(given) <= {"true", "false"}:
        raise ConfigError(f"{TRUST}{given[-1]}: give true or false")
    return given[-1:] == ["true"]


def _single_setting(word: str, run: str) -> str:
    """The key of a word beside resume=; ConfigError unless it is that of one setting."""
    key, equals, _ = word.partition("=")
    key = key.lstrip("+")
    group = key.partition(".")[0]
    if not equals or key in config.GROUPS or ("." in key and group not in config.GROUPS):
        raise ConfigError(
            f"resume={run} takes single settings, such as train.steps=3000 or track.mode=off, "
            f"and nothing else, not {word}"
        )
    return key


def _value(word: str, key: str) -> object:
    """The value as Hydra reads it elsewhere: a number, a text, a list."""
    (word,) = as_typed([word])
    override = values.parse(word)
    if override.is_sweep_override():
        raise ConfigError(f"a resumed run has one value of {key}, and not those of {word}")
    return override.value()
