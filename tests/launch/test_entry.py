"""What every command does first, and what it does last."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("words", [["run=latest"], ["--help"]])
def test_a_command_that_ends_does_not_look_for_garbage_once_more(words):
    """Half a second of every command, after its last line, for memory that was free anyway."""
    lines = [
        "import atexit, gc, sys",
        "atexit.register(lambda: print('frozen', gc.get_freeze_count() > 0))",
        "from lm.launch import entry",
        "entry.begin('sample')",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), *words], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.endswith("frozen True\n"), done.stderr
