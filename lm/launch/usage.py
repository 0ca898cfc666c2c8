"""What --help prints: a command's purpose, examples and every key; or all commands, a line each."""

import ast
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from lm.launch import cli, keys
from lm.settings import commands
from lm.system import foreign, streams

WIDTH = 80
COLUMN = 32  # where the meaning of a key begins


def answer(verb: str, words: Sequence[str]) -> None:
    """Print the help of a command; a mistake in the words is one line and exit code 2."""
    cli.prepare_streams()
    with cli.errors_in_one_line():
        words = cli.import_own_modules(words)
        action = " ".join([verb, *words[:1]])
        if action in commands.COMMANDS:
            text = page(action, words)
        elif verb in commands.COMMANDS:
            text = page(verb, words)
        else:
            text = overview("" if verb == "lm" else f"{verb} ")
        streams.print_text(text)


def overview(start: str = "") -> str:
    """One line for each command whose name begins with `start`."""
    rows = [(name, commands.summary(cls)) for name, cls in commands.COMMANDS.items()]
    lines = [f"  {name:<19}{text}" for name, text in rows if name.startswith(start)]
    name = f"lm {start}".strip()
    return "\n".join(
        [
            f"{name} COMMAND key=value ...   (python -m lm.COMMAND does the same)",
            "",
            *lines,
            "",
            f"{name} COMMAND --help shows the settings of a command.",
        ]
    )


def page(command: str, words: Sequence[str]) -> str:
    """The purpose of a command, its examples, and every key with default, meaning and limits."""
    cls = commands.COMMANDS[command]
    lines = []
    for part in (cls.__doc__ or "").split("\n\n"):
        lines += [*textwrap.wrap(" ".join(part.split()), WIDTH), ""]
    lines += [f"  {line}" for line in examples(command)]
    lines += ["", "settings, as key=value:"]
    for section in keys.sections(command, words):
        if section.group:
            others = f"or {', '.join(section.others)}"
            lines += ["", *row(f"{section.group}={section.choice}", others)]
        for key in section.keys:
            meaning = "; ".join(text for text in (key.meaning, key.rule) if text)
            left = key.name if key.default is None else f"{key.name}={key.default}"
            lines += row(f"  {left}", meaning)
    return "\n".join(lines)


def row(left: str, right: str) -> list[str]:
    """Two columns; a long left one has its own line."""
    parts = textwrap.wrap(right, WIDTH - COLUMN, break_on_hyphens=False) or [""]
    if len(left) >= COLUMN - 1:
        parts.insert(0, left)
    else:
        parts[0] = f"{left:<{COLUMN}}{parts[0]}"
    return [parts[0].rstrip(), *(" " * COLUMN + part for part in parts[1:])]


def examples(command: str) -> list[str]:
    """The command lines in the docstring of the command's module, which is not imported."""
    verb = command.partition(" ")[0]
    package = Path(__file__).parent.parent
    found = [package / f"{verb}.py", package / verb / "__main__.py"]
    text = foreign.read_text(next(path for path in found if path.is_file()), links=True)
    docstring = ast.get_docstring(ast.parse(text)) or ""
    lines = [line.strip() for line in docstring.splitlines() if f"-m lm.{command}" in line]
    return [re.sub(r"\s+#", "  #", line) for line in lines]
