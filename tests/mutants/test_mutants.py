"""The command that tries mutants: what it gives to mutmut does the same as the sources."""

import pytest

from tests.helpers import ROOT
from tests.mutants import __main__ as command
from tests.mutants.__main__ import HEAD, HERE, Living, mutable, read_reasons
from tests.mutants.judges import FILES, JUDGES


def test_every_judge_is_there():
    assert all((ROOT / path).is_file() for path in FILES) and len({*FILES}) == len(FILES)
    for judges in JUDGES.values():
        for judge in judges:
            file, _, name = judge.partition("::")
            assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8"), judge


def test_a_decorator_is_applied_below_its_function_and_does_the_same():
    source = """
import contextlib

class A:
    @property
    def one(self) -> int:
        return 1

    @staticmethod
    def two() -> int:
        return 2

@contextlib.contextmanager
def three():
    yield 3

after = 4
"""
    made = mutable(source)
    assert "@contextlib" not in made and "@property" not in made and "@staticmethod" in made
    space = {}
    exec(made, space)
    with space["three"]() as three:
        assert (space["A"]().one, space["A"].two(), three, space["after"]) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "statement",
    ['raise ValueError("no")', 'assert x, "no"', 'log.info("no")', 'failpoint.hit("no")', "raise"],
)
def test_what_an_error_an_assertion_or_the_log_says_is_left_alone(statement):
    made = mutable(f"def f(x):\n    {statement}\n    return 1\n")
    assert [line.endswith("# pragma: no mutate") for line in made.splitlines()] == [0, 1, 0]


def test_every_mutant_that_may_live_is_of_a_judged_file_and_has_a_reason():
    reasons = read_reasons((HERE / "living.txt").read_text(encoding="utf-8"))
    assert all(mutant.path in FILES and why for mutant, why in reasons.items())
    mutant = next(iter(reasons))
    assert read_reasons(f"# words\n\n{mutant}\n= because\n") == {mutant: "because"}
    assert isinstance(mutant, Living)
    with pytest.raises(SystemExit, match="a reason are missing"):
        read_reasons(str(mutant))


def test_the_table_keeps_its_rows_in_order_and_tells_how_many_lived_before(tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text(f"words\n\n{HEAD}\n|---|--:|--:|--:|--:|\n", encoding="utf-8")
    monkeypatch.setattr(command, "HERE", tmp_path)
    first, second = FILES[:2]
    assert command.write_row(second, (9, 8, 1, 0)) is None
    assert command.write_row(first, (5, 2, 0, 3)) is None
    assert command.write_row(first, (5, 3, 0, 2)) == 3
    assert page.read_text(encoding="utf-8").splitlines() == [
        "words", "", HEAD, "|---|--:|--:|--:|--:|",
        f"| `{first}` | 5 | 3 | 0 | 2 |", f"| `{second}` | 9 | 8 | 1 | 0 |",
    ]  # fmt: skip
