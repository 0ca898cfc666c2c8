"""What programs wrote, which is no text to learn from: our own files, environments, caches.

    generated.what(".", ["config.resolved.yaml", ...])      # "lm's own run"
    generated.what_file(Path("report.html"))                # "lm's own page"

What decides is in the folder or file, and the name alone only where that is its whole meaning.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from lm.config import RESOLVED
from lm.system import files, foreign
from lm.system.errors import DamagedError

OURS = "lm's own"
OUTPUTS = f"{OURS} outputs"
CACHE_TAG = "CACHEDIR.TAG"  # what programs call the file that marks a folder as a cache
# A file or folder in it that says what a folder is.
MARKS = {
    RESOLVED: f"{OURS} run",
    "optimization_results.yaml": f"{OURS} sweep",
    "trials.jsonl": f"{OURS} sweep",
    "corpus.json": f"{OURS} cache",
    "tokens.json": f"{OURS} cache",
    "tokenizer.json": f"{OURS} export",
    "ranks.tiktoken": f"{OURS} export",
    ".hydra": "a job of Hydra",
    "multirun.yaml": "a sweep of Hydra",
    "pyvenv.cfg": "an environment",
    "conda-meta": "an environment",
    CACHE_TAG: "a cache",
}
# A mark of an ordinary name counts only beside this file.
BESIDE = {
    "trials.jsonl": "study.json",
    "corpus.json": "manifest.json",
    "tokens.json": "manifest.json",
    "tokenizer.json": "manifest.json",
    "ranks.tiktoken": "manifest.json",
}
# How a file of ours begins that lies where the user said, and would be read as a text.
BEGINNINGS = {
    rb"<!doctype html>\s(?s:.){1,600}\simg-src data:\">\s"
    rb"(?:<meta [^>]*>)?\s*<title>(?:lens|lm report)</title>": f"{OURS} page",
    rb"<\?xml (?s:.){1,900}<dc:title>lm</dc:title>": f"{OURS} plot",
    rb"\x89PNG\r\n\x1a\n(?s:.){1,300}tEXtSoftware\x00lm": f"{OURS} plot",
    rb'\{"format":"lm-tokenizer"': f"{OURS} tokenizer",
    rb'\{"op_code":\d+,"worker_id":': f"{OURS} search",
    rb'\{"difference": [^,]{1,30}, "interval": ': f"{OURS} comparison",
}
BEGINNING_BYTES = 2000
STAGE = re.compile(
    r"(?:corpora|tokenizers|tokens|floors|overlap|shards|wandb)-[0-9a-f]{16}"
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


def what_file(path: Path) -> str:
    """What program wrote the file, as its beginning shows; "" if none of ours did."""
    try:
        with foreign.open_plain(path, links=True) as file:
            beginning = file.read(BEGINNING_BYTES)
    except (OSError, DamagedError):  # the reader tells of it
        return ""
    for pattern, kind in BEGINNINGS.items():
        if re.match(pattern, beginning):
            return kind
    return ""
