"""Paths as a person types them, and as they may leave this machine.

paths.expanded("~/my.txt")         # "/home/amelia/my.txt"
paths.public("/home/amelia/my.txt")  # "my.txt"
"""

import functools
import os
import re
from pathlib import Path


def expanded(path: str) -> str:
    """The path with the home directory for a `~` at its start, unless a file is called that way."""
    return path if os.path.lexists(path) else os.path.expanduser(path)


def public(path: str) -> str:
    """A path as it may leave this machine: from the current directory on, or its last part.

    So it tells neither where somebody's folders lie nor what the person is called. A folder with
    the person's name becomes ~.
    """
    home = os.path.expanduser("~")
    people = {Path(home).name, *map(os.environ.get, ("USER", "LOGNAME", "USERNAME"))}
    people -= {"root"}  # nobody is called that
    return _public(path, os.path.abspath(expanded(path)), os.getcwd(), home, frozenset(people))


@functools.lru_cache(maxsize=10_000)  # a report of many runs asks for the same paths again
def _public(path: str, full: str, here: str, home: str, people: frozenset[str | None]) -> str:
    is_below = os.path.commonpath([full, here]) == here if path else False
    is_of_windows = re.match(r"[A-Za-z]:[/\\]|\\\\", path)  # where another machine's run was made
    if is_below and not is_of_windows and not Path(home).is_relative_to(here):
        relative = os.path.relpath(full, here)
        if people.isdisjoint(Path(relative).parts):
            return relative
    *above, last = re.split(r"[/\\]", path.rstrip("/\\"))
    return "~" if last in people or above[-1:] in (["home"], ["Users"]) else last
