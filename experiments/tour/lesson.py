"""What all lessons share: the road with the place where one stands, the text, the last cell.

lesson.road("tokens"); lesson.corpus("names"); lesson.ending(command, "val loss 2.454")
"""

import html
import os
from pathlib import Path

import marimo as mo

from lm.corpora.download import NAMES, SHAKESPEARE
from lm.system import files

ROAD = ("text", "tokens", "embeddings", "contextual embeddings", "probabilities")
PINNED = {"names": NAMES, "shakespeare": SHAKESPEARE}


def road(*places: str) -> mo.Html:
    """The road from text to probabilities, with the places that the lesson walks through."""
    stops = []
    for stop in ROAD:
        style = "padding: 3px 9px; border-radius: 12px; border: 1px solid rgba(128, 128, 128, 0.5)"
        if stop in places:
            style += "; background: rgba(66, 133, 244, 0.35); font-weight: 600"
        stops.append(f'<span style="{style}">{stop}</span>')
    style = "display: flex; flex-wrap: wrap; gap: 6px; align-items: center"
    return mo.Html(f'<div style="{style}">{"<span>→</span>".join(stops)}</div>')


def corpus(name: str) -> str:
    """`name` if its file is in LM_DATA_DIR or was downloaded before; else `pydocs`.

    Nothing is downloaded for a lesson; `python -m lm.train corpus=names` does that once.
    """
    file = PINNED[name].name
    folders = [files.cache_dir() / "downloads"]
    if os.environ.get("LM_DATA_DIR"):
        folders.append(Path(files.expanded(os.environ["LM_DATA_DIR"])))
    return name if any((folder / file).is_file() for folder in folders) else "pydocs"


def folder(name: str, words: list[str]) -> str:
    """A directory in outputs/tour for runs with these words.

    What was trained is found again when a lesson is opened again; other words train anew.
    """
    return f"outputs/tour/{name}-{files.fingerprint(words)[:8]}"


def ending(command: str, expected: str, after: str = "") -> mo.Html:
    """The last cell: a command for a terminal and what it will print; `after` leads on.

    Run as a script, a lesson prints both.
    """
    if mo.app_meta().mode == "script":
        print(f"$ {command}\n... {expected} ...")
    style = "white-space: pre-wrap; font-family: monospace; margin: 8px 0"
    return mo.md(
        f'## Now in a terminal\n\n<div style="{style}">{html.escape(command)}</div>\n\n'
        f"Among what it prints, expect **`{expected}`**: the number found above. {after}"
    )
