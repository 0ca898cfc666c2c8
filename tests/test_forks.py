"""Commands are forks wherever a fork is what a new process would be."""

import os

import pytest

from tests.forks import Forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_one_process_serves_all_tests_but_those_that_set_up_python_itself(tmp_path):
    """What a test's own folder is in must not count, or no second test would have a fork."""
    here = dict(os.environ)
    elsewhere = {key: value.replace(str(tmp_path), "/elsewhere") for key, value in here.items()}
    forks = Forks()
    assert here != elsewhere and forks.can_run(here) and forks.can_run(elsewhere)
    assert not forks.can_run({**here, "PYTHONSAFEPATH": "1"})
