"""What stands in the environment before torch is loaded."""

import os
import subprocess
import sys

import pytest

from lm.system import environment
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"GOMP_SPINCOUNT": "5000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_wait_asleep_unless_the_user_says_how(before, after, monkeypatch):
    monkeypatch.setattr(environment.os, "environ", dict(before))
    environment.let_threads_yield()
    assert environment.os.environ == after


def test_a_command_says_so_before_torch_is_loaded():
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    del env["GOMP_SPINCOUNT"]  # which the tests have set for all that they start
    code = (
        "import os, sys; sys.argv = ['lm.sample', 'run=x']; from lm.launch import entry; "
        "entry.begin('sample'); print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    said = subprocess.check_output([sys.executable, "-c", code], env=env, text=True)
    assert said.split() == ["5000", "False"]
