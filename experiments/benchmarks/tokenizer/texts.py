"""The texts that bench.py measures on.

corpora()["stdlib"]   # documents: the source files of the standard library
"""

import os
import random
import sysconfig
from pathlib import Path

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"  # one emoji of four


def corpora() -> dict[str, list[str]]:
    """Documents by corpus."""
    out = {}
    if folder := os.environ.get("LM_DATA_DIR"):
        out["shakespeare"] = [(Path(folder) / "shakespeare.txt").read_text(encoding="utf-8")]
    out["stdlib"] = stdlib()
    from lm import config

    out["pydocs"] = list(config.PydocsConfig().build().documents())
    return out


def stdlib() -> list[str]:
    """The source of the standard library without its tests."""
    skip = {"site-packages", "test", "tests", "idle_test", "lib2to3"}
    return sources(Path(sysconfig.get_paths()["stdlib"]), skip)


def installed() -> list[str]:
    """The source of every package of this environment."""
    return sources(Path(sysconfig.get_paths()["purelib"]), set())


def sources(root: Path, skip: set[str]) -> list[str]:
    files = [f for f in sorted(root.rglob("*.py")) if not skip & set(f.relative_to(root).parts)]
    return [f.read_text(encoding="utf-8", errors="replace") for f in files]


def hostile_texts() -> dict[str, str]:
    """A megabyte of one kind."""
    n, rng = 1_000_000, random.Random(0)
    return {
        "one letter": "a" * n,
        "spaces": " " * n,
        "random letters": "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=n)),
        "emoji sequences": FAMILY * (n // len(FAMILY.encode())),
    }


def write_grammar(path: Path, n_byte: int) -> int:
    """10 MB of sentences, one a line, again and again up to n_byte bytes; a file there stays."""
    from lm.corpora.grammar import sentences

    if not path.exists():
        ten, size = [], 0
        for sentence in sentences(10**9, seed=0):
            ten.append(sentence + "\n")
            size += len(ten[-1])
            if size >= 10_000_000:
                break
        block = "".join(ten).encode()
        with open(path, "wb") as file:
            for _ in range(n_byte // 10_000_000):
                file.write(block)
    return path.stat().st_size
