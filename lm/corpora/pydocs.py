"""English prose that every CPython carries: the language's help topics and the docstrings.

    Pydocs(PydocsConfig()).documents()      # "The \"assert\" statement\n*****...", ...

About 2 MB. It differs a little between Python versions, which is why runs record its hash.
"""

import ast
import hashlib
import inspect
import os
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.corpora.base import Corpus

RULES = 1  # raise it when the code below comes to produce other text from the same Python
MIN_CHARS = 30  # shorter docstrings are labels ("Return self.") and teach little prose
# Installed packages are not the standard library; tests and demos are code with few words;
# lib2to3 and idlelib go missing in newer or smaller installations.
SKIP = {"site-packages", "dist-packages", "__pycache__", "lib-dynload", "pydoc_data"}
SKIP |= {"test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip"}
HAVE_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Pydocs(Corpus):
    """One document per help topic (by name), then one per docstring (by file and line).

    Source files are parsed, never imported. An installation without sources has its topics only.
    """

    def source(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for path in _source_files():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        for name, text in sorted(_topics().items()):
            digest.update(hashlib.sha256(f"{name}\n{text}".encode()).digest())
        # The version besides the hash: another one may parse the same file differently.
        version = f"{platform.python_implementation()} {platform.python_version()}"
        return {"name": "pydocs", "rules": RULES, "python": version, "sha256": digest.hexdigest()}

    def documents(self) -> Iterator[str]:
        seen: set[bytes] = set()
        for text in _texts():
            key = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
            if len(text) >= MIN_CHARS and key not in seen and _is_utf8(text):
                seen.add(key)
                yield text
        if not seen:
            raise ValueError(
                f"this Python ({sysconfig.get_path('stdlib')}) has neither help topics nor source "
                "files: choose another corpus, as corpus=files corpus.path=my.txt"
            )


def _texts() -> Iterator[str]:
    for _, text in sorted(_topics().items()):
        yield inspect.cleandoc(text)
    for path in _source_files():
        yield from _docstrings(path.read_bytes())


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        return {}
    return topics


def _source_files() -> list[Path]:
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in SKIP]
        files += [Path(folder, n) for n in names if n.endswith(".py") and _is_portable(n)]
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def _is_portable(name: str) -> bool:
    """Not one of the files that a build writes about its own machine."""
    return not name.startswith(("_sysconfigdata", "_sysconfig_vars"))


def _docstrings(code: bytes) -> list[str]:
    """The docstrings of one source file, in its order, without their indentation."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # stray backslashes in old modules
            tree = ast.parse(code)
    except (SyntaxError, ValueError):  # a template, or a file cut short
        return []
    return [text for node in _definitions(tree) if (text := ast.get_docstring(node))]


def _definitions(node: ast.AST) -> Iterator[ast.AST]:
    """The module, classes and functions under `node`, as they stand in the file.

    Only statements are entered, which is three times as fast as ast.walk.
    """
    if isinstance(node, HAVE_DOCSTRINGS):
        yield node
    for block in ("body", "handlers", "orelse", "finalbody"):
        for inner in getattr(node, block, ()):
            yield from _definitions(inner)


def _is_utf8(text: str) -> bool:
    """Not so for the odd docstring about surrogates."""
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False
