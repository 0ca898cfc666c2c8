"""Folders that programs fill, which are no text to learn from: ours, environments, caches.

    generated.what(Path("."), ["config.resolved.yaml", ...])       # "a run of lm"

What decides is in the folder, and the name alone only where that is its whole meaning.
"""

import os
import re
from collections.abc import Iterable

from lm.config import RESOLVED
from lm.system import files

OURS = "lm's own"
OUTPUTS = f"{OURS} outputs"
# A file or folder in it that says what a folder is.
MARKS = {
    RESOLVED: f"{OURS} run",
    "optimization_results.yaml": f"{OURS} sweep",
    "trials.jsonl": f"{OURS} sweep",
    "corpus.json": f"{OURS} cache",
    "tokens.json": f"{OURS} cache",
    ".hydra": "a job of Hydra",
    "multirun.yaml": "a sweep of Hydra",
    "pyvenv.cfg": "an environment",
    "conda-meta": "an environment",
    "CACHEDIR.TAG": "a cache",
}
# A mark of an ordinary name counts only beside this file.
BESIDE = {
    "trials.jsonl": "study.json",
    "corpus.json": "manifest.json",
    "tokens.json": "manifest.json",
}
STAGE = re.compile(
    r"(?:corpora|tokenizers|tokens|floors|overlap)-[0-9a-f]{16}"
)  # a folder of our cache
WANDB = re.compile(r"(?:offline-)?run-\d{8}_\d{6}-\w+")  # a run in a folder of W&B
NAMES = {"__pycache__", "node_modules", "site-packages", "dist-packages"}
ENDS = (".egg-info", ".dist-info")


def what(folder: str, inside: Iterable[str]) -> str:
    """What program fills the folder, of which `inside` are the names in it; "" if none does."""
    inside = set(inside)
    for mark, kind in MARKS.items():
        if mark in inside and BESIDE.get(mark, mark) in inside:
            return kind
    if any(STAGE.fullmatch(name) for name in inside):
        return f"{OURS} cache"
    if any(WANDB.fullmatch(name) for name in inside):
        return "a folder of W&B"
    name = os.path.basename(folder)
    if name in NAMES or name.endswith(ENDS):
        return "installed packages"
    if os.path.realpath(folder) in {os.path.realpath(p) for p in ("outputs", files.cache_dir())}:
        return OUTPUTS
    return ""
