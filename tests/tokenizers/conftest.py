"""Text for the tokenizer tests."""

import sysconfig
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def library_text() -> list[str]:
    """200 kB of real text that every machine has: modules of the standard library."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    names = ("argparse.py", "typing.py", "inspect.py")
    return ["".join((folder / name).read_text(encoding="utf-8") for name in names)[:200_000]]
