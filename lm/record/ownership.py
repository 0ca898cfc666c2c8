"""Whether this user made a run on this machine: what a stranger's settings touch needs a word.

    ownership.save(cfg, out)                  # signed with the user's own key
    ownership.check_reads(out, cfg, trust)    # ConfigError: what it would read outside the run

config.resolved.yaml ends with an HMAC of the settings that act outside the run. Its key lies in
~/.config/lm, or under XDG_CONFIG_HOME, and in no run: a copy of a run is still its owner's, and
whoever writes other settings cannot sign them. An older run is its owner's if the cache holds the
very text that it was trained on.
"""

import glob
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from lm import config
from lm.config import RESOLVED, Config
from lm.record.schemas import DataRecord, read_part
from lm.settings.yaml_files import MAX_BYTES, to_yaml
from lm.system import files, foreign
from lm.system.errors import ConfigError, DamagedError

log = logging.getLogger(__name__)
CORPUS = "corpus.path"
DATASET = "corpus.dataset"  # what corpus=hub fetches
PART = re.compile(r"corpus\.parts\.[^.]+\.(path|dataset)")
DATA = (CORPUS, "tokenizer.path")  # what pipeline.prepare reads
READS = (*DATA, "init_from", "train.also")  # and training
SENDS = ("track.mode", "track.entity", "track.project", "track.artifacts")
STARTS = ("train.n_proc",)
SIGNATURE = re.compile(r"^# made by the holder of this key: ([0-9a-f]{64})$", re.MULTILINE)
KEY_BYTES = 32


def save(cfg: Config, out: Path) -> None:
    """Write the settings into the run's directory, signed if this user can have a key."""
    text = to_yaml(cfg)
    signature = _sign(cfg, _key(make=True))
    if signature:
        text += f"# made by the holder of this key: {signature}\n"
    files.atomic_write(out / RESOLVED, text)


def is_signed(out: Path, cfg: Config) -> bool:
    """Whether the directory's settings are these, signed by this user."""
    wanted = _sign(cfg, _key(make=False))
    found = _signatures(out)
    return bool(wanted and found and hmac.compare_digest(found[-1], wanted))


def _signatures(out: Path) -> list[str]:
    """The signatures in the directory's settings; the last one counts."""
    try:
        return SIGNATURE.findall(foreign.read_text(out / RESOLVED, MAX_BYTES))
    except DamagedError:
        return []


def check_reads(out: Path, cfg: Config, trust: bool, keys: Sequence[str] = DATA) -> None:
    """ConfigError for a run from elsewhere, with what these settings of it would have this user
    read; with `trust` that is logged instead.
    """
    acts = _reads(cfg, keys)
    if acts and not is_signed(out, cfg) and not _is_older_run(out, cfg, keys):
        _refuse(out, acts, trust)


def check_start(out: Path, saved: Config, cfg: Config, given: Collection[str], trust: bool) -> None:
    """ConfigError for a run from elsewhere that is to train with the settings `cfg`, with all that
    these would have this user read, send and start; with `trust` that is logged instead.

    `given` are the keys of settings that stand on the command line.
    """
    if is_signed(out, saved):
        return
    starts = [] if "train.n_proc" in given else _starts(cfg)
    acts = _reads(cfg, READS) + _sends(cfg) + starts
    is_harmless = not starts and not cfg.track.entity and _is_older_run(out, cfg, READS)
    if acts and not is_harmless:
        _refuse(out, acts, trust)


def _refuse(out: Path, acts: Sequence[str], trust: bool) -> None:
    line = f"{out} was not made by you on this machine, and would {', '.join(acts)}"
    if not trust:
        raise ConfigError(f"{line}: if you want that, give trust=true too")
    log.warning(f"note: {line}")


# ------------------------------------------------------------------------- what settings act on


def _paths(cfg: Config, keys: Sequence[str]) -> list[str]:
    """The paths that these settings name."""
    paths = []
    for value in _chosen(cfg, keys).values():
        paths += value if isinstance(value, list) else [value]
    known = config.options("corpus")  # train.also may name one
    return [path for path in paths if path not in known]


def _chosen(cfg: Config, keys: Sequence[str]) -> dict[str, Any]:
    """Those of these settings that have a value, in this order; with the path of a corpus the data
    set of the hub, and those of the parts of a mix."""
    values = config.flat(cfg)
    parts = [key for key in values if CORPUS in keys and (key == DATASET or PART.fullmatch(key))]
    return {key: values[key] for key in (*keys, *parts) if values.get(key)}


def _reads(cfg: Config, keys: Sequence[str]) -> list[str]:
    paths = list(dict.fromkeys(_paths(cfg, keys)))  # each is told once
    shown = [path if len(path) <= 200 else f"{path[:200]}..." for path in paths[:5]]
    if len(paths) > 5:
        shown.append(f"{len(paths) - 5} more")
    return [f"read {' and '.join(shown)}"] if shown else []


def _sends(cfg: Config) -> list[str]:
    track = cfg.track
    if track.mode == "off":
        return []
    what = {"none": "its curves", "model": "its curves and model", "all": "its text and model"}
    place = f"{track.entity or 'your own account'}/{track.project}"
    return [f"send {what[track.artifacts]} to W&B's {place}"]


def _starts(cfg: Config) -> list[str]:
    n_proc = cfg.train.n_proc
    return [f"start {n_proc:,} processes"] if n_proc > 1 else []


def _is_older_run(out: Path, cfg: Config, keys: Sequence[str]) -> bool:
    """Whether a run without signature reads a text alone from which this user's cache was made, by
    its name and checksum, which no stranger knows. Raises DamagedError.
    """
    if any(key.endswith(".dataset") for key in _chosen(cfg, keys)):
        return False  # what lies on the hub is known to every stranger
    paths = _paths(cfg, keys)
    if paths != _paths(cfg, [CORPUS]) or any(glob.has_magic(path) for path in paths):
        return False
    data = read_part(out, DataRecord)
    if data is None or _signatures(out):  # signed by another
        return False
    folder = files.cache_dir() / f"corpora-{files.fingerprint(data.corpus.source)}"
    names = {Path(path).name for path in paths}
    return names <= set(data.corpus.file_names()) and folder.is_dir()


# ------------------------------------------------------------------------------- the signature


def _sign(cfg: Config, key: bytes | None) -> str:
    """The signature of what the settings act on; "" without a key."""
    if key is None:
        return ""
    text = json.dumps(_chosen(cfg, (*READS, *SENDS, *STARTS)), sort_keys=True)
    return hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes | None:
    """The user's key; None if there is none, and none can be made."""
    try:
        home = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
        path = home / "lm" / "key"
        if make and not path.exists():
            files.make_folder(path.parent, mode=0o700)
            files.create(path, secrets.token_bytes(KEY_BYTES), mode=0o600)
        key = foreign.read_bytes(path, 1 << 10, links=True)
    except (OSError, RuntimeError, DamagedError):  # no home, or one that cannot be written
        return None
    return key if len(key) >= KEY_BYTES else None
