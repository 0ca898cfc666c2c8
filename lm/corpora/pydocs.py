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

from lm.corpora.base import Corpus
from lm.system import foreign

RULES = 1  # raise it when a change of the code below gives other text from the same Python
MIN_CHARS = 30  # shorter docstrings are labels ("Return self.") and teach little prose
# Installed packages are not the standard library; tests and demos are code with few words;
# lib2to3 and idlelib go missing in newer or smaller installations.
SKIPPED_FOLDERS = {
    "site-packages",
    "dist-packages",
    "__pycache__",
    "lib-dynload",
    "pydoc_data",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "ensurepip",
}
Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Pydocs(Corpus):
    """One document per help topic (by name), then one per docstring (by file and line).

    Source files are parsed, never imported. An installation without sources has its topics only.
    """

    def source(self) -> dict[str, object]:
        digest = hashlib.sha256()
        for path in source_files():
            digest.update(hashlib.sha256(foreign.read_bytes(path, links=True)).digest())
        for name, text in sorted(topics().items()):
            digest.update(hashlib.sha256(f"{name}\n{text}".encode()).digest())
        # The version belongs to it: another one may parse the same file differently.
        version = f"{platform.python_implementation()} {platform.python_version()}"
        return {"name": "pydocs", "rules": RULES, "python": version, "sha256": digest.hexdigest()}

    def documents(self) -> Iterator[str]:
        """Texts of at least MIN_CHARS characters, each once. ValueError if there are none."""
        digests: set[bytes] = set()
        for text in _texts():
            digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
            if len(text) >= MIN_CHARS and digest not in digests and _is_utf8(text):
                digests.add(digest)
                yield text
        if not digests:
            raise ValueError(
                f"this Python ({sysconfig.get_path('stdlib')}) has neither help topics nor source "
                "files: choose another corpus, as corpus=files corpus.path=my.txt"
            )


def _texts() -> Iterator[str]:
    for _, text in sorted(topics().items()):
        yield inspect.cleandoc(text)
    for path in source_files():
        yield from docstrings(foreign.read_bytes(path, links=True))


def topics() -> dict[str, str]:
    """The texts of Python's help() by their topic, {} if this Python comes without them."""
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        return {}
    return topics


def source_files() -> list[Path]:
    """The standard library's source files, in an order that is the same on every machine."""
    root = Path(sysconfig.get_path("stdlib"))
    files = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS]
        for name in names:
            if name.endswith(".py") and _is_portable(name):
                files.append(Path(folder, name))
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def _is_portable(name: str) -> bool:
    """Not one of the files that a build writes about its own machine."""
    return not name.startswith(("_sysconfigdata", "_sysconfig_vars"))


def docstrings(code: bytes) -> list[str]:
    """The docstrings of one source file, in its order, without their indentation."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # stray backslashes in old modules
            tree = ast.parse(code)
    except (SyntaxError, ValueError):  # a template, or a file cut short
        return []
    texts = (ast.get_docstring(node) for node in _definitions(tree))
    return [text for text in texts if text]


def _definitions(node: ast.AST) -> Iterator[Definition]:
    """The module, classes and functions under `node`, in the order of the file.

    Only statements are entered, which is three times as fast as ast.walk.
    """
    if isinstance(node, Definition):
        yield node
    for block in ("body", "handlers", "orelse", "finalbody"):
        for inner in getattr(node, block, ()):
            yield from _definitions(inner)


def _is_utf8(text: str) -> bool:
    """False for the odd docstring that contains surrogates."""
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False
