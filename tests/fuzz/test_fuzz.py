"""A share of `make fuzz`: random inputs to everything that lm reads, in a process of their own.

LM_FUZZ_SECONDS=600 python -m pytest -m faults tests/fuzz/test_fuzz.py
"""

import os
import random
import re
import subprocess
import sys

import pytest

from tests.fuzz import mutations
from tests.helpers import ROOT

SECONDS = float(os.environ.get("LM_FUZZ_SECONDS", 180))


@pytest.mark.faults
@pytest.mark.slow
def test_random_inputs_are_taken_or_refused_in_one_line_and_soon(record_property):
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz"],
        cwd=ROOT,
        env={**os.environ, "LM_FUZZ_SECONDS": str(SECONDS), "LM_FUZZ_JOBS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS + 900,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-8000:]}"
    tried = re.search(r"inputs tried at random: ([\d,]+)", done.stdout)
    record_property("inputs tried at random", int(tried[1].replace(",", "")))


def test_an_input_is_made_again_by_its_number():
    good = b'{"step": 1, "loss": [0.5, null], "name": "a"}\n{"step": 2}'

    def made(number: int) -> bytes:
        return mutations.of_lines(random.Random(f"0/curves/{number}"), good)

    first = [made(number) for number in range(200)]
    assert first == [made(number) for number in range(200)]
    assert len(set(first)) > 150 and first.count(good) < 20
