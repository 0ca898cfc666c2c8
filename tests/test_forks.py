"""Commands are forks wherever a fork is what a new process would be."""

import os
import signal

import pytest

from tests import conftest
from tests.forks import Forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_one_process_serves_all_tests_but_those_that_set_up_python_itself(tmp_path):
    """What a test's own folder is in must not count, or no second test would have a fork."""
    here = dict(os.environ)
    elsewhere = {key: value.replace(str(tmp_path), "/elsewhere") for key, value in here.items()}
    forks = Forks(here)
    assert here != elsewhere and forks.can_run(here) and forks.can_run(elsewhere)
    assert not forks.can_run({**here, "PYTHONSAFEPATH": "1"})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_training_sets_in_the_environment_costs_no_later_command_its_fork(forks, trained):
    """A third of all commands were new processes, of 3 s each, after the first run in a process."""
    trained("model=bigram", "train.deterministic=true")
    assert "CUBLAS_WORKSPACE_CONFIG" in os.environ
    assert forks.can_run(conftest.environment())


def test_a_test_leaves_the_environment_as_it_was():
    before = dict(os.environ)
    fixture = conftest.own_environment()
    next(fixture)
    os.environ["SET_BY_A_LIBRARY"] = "1"
    home = os.environ.pop("HOME", None)
    next(fixture, None)
    assert dict(os.environ) == before and os.environ.get("HOME") == home


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("body", "code", "stderr"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('no room')", 1, "no room\n"),
        ("raise KeyError('x')", 1, "KeyError: 'x'\n"),
    ],
)
def test_a_fork_ends_as_a_process_does(forks, tmp_path, body, code, stderr):
    """With its exit code, after its threads and what is registered with atexit, all of it
    written: though its memory is not freed piece by piece."""
    lines = [
        "import atexit, sys, threading, time",
        "atexit.register(print, 'last')",
        "thread = threading.Thread(target=lambda: [time.sleep(0.05), print('thread')])",
        "thread.start()",
        body,
    ]
    (tmp_path / "ending.py").write_text("\n".join(lines), encoding="utf-8")
    done = forks.run(["ending"], tmp_path, conftest.environment(), tmp_path, timeout=60)
    assert (done.returncode, done.stdout) == (code, "thread\nlast\n")
    assert done.stderr == stderr or (stderr and done.stderr.endswith(stderr))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_under_way_can_be_killed_and_its_exit_code_is_told_as_that_of_a_process(
    forks, tmp_path
):
    (tmp_path / "sleeping.py").write_text("import time; time.sleep(60)", encoding="utf-8")
    (tmp_path / "ending.py").write_text("raise SystemExit(3)", encoding="utf-8")
    env = conftest.environment()
    sleeping = forks.start(["sleeping"], tmp_path, env, tmp_path / "a")
    ending = forks.start(["ending"], tmp_path, env, tmp_path / "b")
    assert ending.wait(60) == 3 and sleeping.poll() is None
    sleeping.kill()
    assert sleeping.wait(60) == sleeping.returncode == -signal.SIGKILL
    assert forks.run(["ending"], tmp_path, env, tmp_path, timeout=60).returncode == 3
