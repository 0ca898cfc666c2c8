"""As far as another system can stand for Windows: what it lacks is hidden from real commands."""

import os
import re
import subprocess
import sys

import pytest

from tests.helpers import ROOT, TINY

pytestmark = pytest.mark.faults  # eight commands, each a process of its own

# Read by each process before anything else. The locks of filelock stand for those it has there.
# What the libraries of this system need, such as os.uname, has to stay.
WITHOUT = """
import os, signal, sys, warnings
import filelock

HIDDEN = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog"}
GONE = "fork mkfifo getuid geteuid statvfs killpg setsid getpgrp getpgid sched_getaffinity sysconf"
SIGNALS = "SIGHUP SIGUSR1 SIGUSR2 SIGKILL SIGALRM SIGQUIT SIGTSTP SIGCHLD SIGPIPE pthread_sigmask"

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def refuse(*args, **kwargs):
    raise OSError(22, "A required privilege is not held by the client")

sys.meta_path.insert(0, Hidden())
for name in HIDDEN:
    sys.modules.pop(name, None)
for module, names in ((os, GONE), (signal, SIGNALS)):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
os.symlink = refuse
warnings.filterwarnings("ignore", category=EncodingWarning)
warnings.filterwarnings("error", category=EncodingWarning, module=r"lm\\.")
"""


@pytest.fixture
def elsewhere(tmp_path, tmp_path_factory):
    """elsewhere("lm.train ..."): what a command prints where this is the system and cp1252 the
    encoding of its streams."""
    folder = tmp_path_factory.mktemp("windows")
    (folder / "sitecustomize.py").write_text(WITHOUT, encoding="utf-8")
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "cp1252"}
    env |= {"PYTHONWARNDEFAULTENCODING": "1", "COLUMNS": "200"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, env=env, capture_output=True, timeout=300
        )
        said = (done.stdout + done.stderr).decode("cp1252")
        assert done.returncode == 0, said
        return said

    return run


def test_a_run_is_trained_looked_at_and_taken_elsewhere(elsewhere, tmp_path):
    """Each run asked os.sysconf and resource for the memory, which are not there."""
    text = "the caf\u00e9 \u8bdd \U0001f642 sat on a mat. " * 200
    (tmp_path / "my.txt").write_text(text, encoding="utf-8")
    words = ["corpus=files", "corpus.path=my.txt", *TINY, "hydra.run.dir=run"]
    assert "done: best val/bpb" in elsewhere("lm.train", *words, "model=bigram")
    assert "done: best val/bpb" in elsewhere("lm.train", "resume=run", "train.steps=30")
    assert elsewhere("lm.sample", "run=run", "prompt=caf\u00e9", "max_tokens=20").startswith("caf")
    assert "to open in a browser" in elsewhere("lm.lens", "run=run", "prompt=\u8bdd", "out=l.html")
    assert "wrote report.html" in elsewhere("lm.report", "run", "out=report.html")
    assert "tokenizer.json" in elsewhere("lm.export", "run=run", "format=tokenizers", "out=mine")
    assert "\u8bdd" in (tmp_path / "l.html").read_text(encoding="utf-8")
    sweep = [*words[:-1], "hydra.sweep.dir=sweep", "model=bigram", "seed=0,1"]
    assert re.search(r"lm\.report sweep", elsewhere("lm.train", "-m", *sweep))
