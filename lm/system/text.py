"""Text for a terminal, for the shell in it, and for a file of settings."""

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

T = TypeVar("T")

# All control characters but tab and newline, the marks that change the order of a line or cannot
# be seen, and halves of characters, which no file and no stream takes. The two joiners stay: words
# of some languages and many emoji are written with them.
CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# Halves of characters, and what Python makes of bytes that it cannot read.
HALVES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with U+FFFD for each character that could drive the terminal, forge a line, or hide
    in a name."""
    return CONTROL.sub("\ufffd", text)


def printable_line(text: str) -> str:
    """The same of a text that is one line: a newline in it is replaced too."""
    return printable(text).replace("\n", "\ufffd")


def shell_word(text: str) -> str:
    """The text as one word of a shell, to be pasted: in quotes where it needs them, and without a
    character that standard error does not have.
    """
    has_all = _on_terminal(text)
    if printable(text) == text and "\n" not in text and text.isprintable() and has_all:
        return shlex.quote(text)
    parts = []
    for char in text:
        if char.isprintable() and (has_all or char.isascii()):
            parts.append("\\" + char if char in "\\'" else char)
        else:
            parts += [f"\\x{byte:02x}" for byte in os.fsencode(char)]
    return f"$'{''.join(parts)}'"  # of bash and zsh


def as_utf8(text: str) -> str:
    """A word of the command line as it was typed in UTF-8, where Python took it for another
    encoding: LC_ALL=C with PYTHONUTF8=0 makes halves of characters of it. Else the same text.
    """
    if not HALVES.search(text):
        return text
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text


def _on_terminal(text: str) -> bool:
    """Whether standard error has all characters of the text: under some settings it is ASCII."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding) == text


def literal(value: T) -> T:
    """The value with each `${` in its texts marked so that OmegaConf replaces nothing there."""
    found: object = value
    if isinstance(value, dict):
        found = {key: literal(inner) for key, inner in value.items()}
    elif isinstance(value, list):
        found = [literal(inner) for inner in value]
    elif isinstance(value, str):  # an odd number of backslashes takes the meaning of `${` away
        found = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return cast(T, found)


def unfit(node: object, key: str, is_path: Callable[[str], bool]) -> list[str]:
    """One sentence for each text among nested settings that no file can hold, or should not.

    A `${...}` is to be replaced, which no file from elsewhere can ask for; in a path it is a name.
    """
    problems = []
    if isinstance(node, Mapping):
        for name, value in node.items():
            problems += unfit(value, f"{key}.{name}".lstrip("."), is_path)
    elif isinstance(node, list):
        for value in node:
            problems += unfit(value, key, is_path)
    elif isinstance(node, str):
        if HALVES.search(node):  # of a word whose bytes are none
            is_utf8 = as_utf8(node) != node
            way_out = "leave out PYTHONUTF8=0, by which Python cannot read it"
            problems.append(f"{key}={node!a}: {way_out if is_utf8 else 'this is not UTF-8'}")
        elif "${" in node and not is_path(key):
            problems.append(f"{key}={node}: write the value itself")
    return problems
