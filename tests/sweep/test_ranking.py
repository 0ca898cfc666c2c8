"""Seeds are folded into mean and spread, and what cannot be read is named."""

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lm.sweep import ranking


def results(*arms: tuple) -> dict[str, ranking.ArmResult]:
    """results((1.0, "a=1"), (None, "a=2")): arms 0 and 1 of a sweep, the second one failed."""
    made = {}
    for number, (value, *words) in enumerate(arms):
        status = "failed" if value is None else "ok"
        made[str(number)] = ranking.ArmResult(words, status, value, None)
    return made


def test_seeds_fold_into_mean_spread_and_count():
    rows = ranking.fold(
        results(
            (1.0, "model=gru", "seed=0"),
            (2.0, "model=gru", "seed=1"),
            (3.0, "model=gru", "seed=2"),
            (1.5, "model=mlp", "seed=0"),
        ),
        Path(),
    )
    assert [(r.settings, r.mean, r.spread, r.n) for r in rows] == [
        (["model=mlp"], 1.5, None, 1),
        (["model=gru"], 2.0, 1.0, 3),
    ]


def test_a_failed_seed_counts_neither_as_value_nor_as_zero():
    rows = ranking.fold(results((4.0, "seed=0"), (None, "seed=1")), Path())
    assert (rows[0].mean, rows[0].spread, rows[0].n, rows[0].failed) == (4.0, None, 1, 1)
    assert ranking.table(rows).splitlines() == [
        "  val/bpb      +-   n  settings (and its arms)",
        "   4.0000           1  all settings the same (0 1, 1 failed)",
    ]


def test_settings_that_every_arm_shares_are_not_repeated():
    rows = ranking.fold(results((1.0, "track=off", "a=1"), (2.0, "track=off", "a=2")), Path())
    assert [r.settings for r in rows] == [["a=1"], ["a=2"]]


def test_a_damaged_result_is_named_in_one_line_and_the_others_are_ranked(tmp_path, caplog):
    for n, text in enumerate(['{"value": 1.5, "new": 0}', '{"value": "low"}', "{", "[" * 9999]):
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / ranking.RESULT).write_text(text)
    assert list(ranking.read(tmp_path)) == ["0"]
    assert len(caplog.messages) == 3 and "\n" not in "".join(caplog.messages)
    assert "1/result.json is not what was written: Expected `float | null`" in caplog.text


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), max_size=8))
def test_the_mean_lies_between_the_smallest_and_the_largest_value(values):
    mean, spread = ranking.mean_and_spread([*values, float("nan"), float("inf")])
    if values:
        assert min(values) - 1e-6 <= mean <= max(values) + 1e-6
    assert (mean is None) == (not values) and (spread is None) == (len(values) < 2)


def test_arms_are_listed_in_the_order_of_their_numbers(tmp_path):
    for n in range(11):
        folder = tmp_path / str(n)
        folder.mkdir()
        record = {"overrides": ["a=1"], "status": "ok", "value": 1.0, "error": None}
        (folder / "result.json").write_text(json.dumps(record))
    assert list(ranking.read(tmp_path)) == [str(n) for n in range(11)]
