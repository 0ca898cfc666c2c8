"""The index of the experiments says what their own pages say."""

from pathlib import Path

from lm.report import experiment, index


def test_best_of_arms_that_tie_is_told_though_one_has_a_single_seed():
    rows = [("a", "2.0"), ("b", "1.0"), ("b", "3.0")]
    table = [{"corpus": "c", "arm": a, "status": "done", "val_bpb": v} for a, v in rows]
    assert index.best_arms(table) == "c: a 2.0000, 0.0000 ahead"


def test_the_index_of_the_experiments_says_what_their_own_pages_say():
    root = Path(experiment.__file__).parents[2] / "experiments"
    assert (root / "README.md").read_text() == index.text(root)
