"""What counts say of a text, and of the end of it that validates."""

import numpy as np
import pytest

from lm import baselines, setup


def drawn(shares: list[float], n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(shares), n, p=shares)


PROSE = [0.4, 0.3, 0.2, 0.1, 0.0, 0.0]
DIGITS = [0.0, 0.0, 0.0, 0.1, 0.4, 0.5]


@pytest.mark.parametrize(
    ("train", "val", "is_unlike"),
    [
        ([(PROSE, 9000)], (PROSE, 1000), False),
        ([(PROSE, 9000)], (DIGITS, 1000), True),
        ([(PROSE, 8800), (DIGITS, 200)], (DIGITS, 1000), True),  # it begins before the split
        ([(PROSE, 4500), (DIGITS, 4500)], (DIGITS, 1000), False),
        ([(PROSE, 900)], (DIGITS, 100), False),  # too short to tell
    ],
)
def test_a_val_of_another_kind_than_every_tenth_but_one_is_told(train, val, is_unlike):
    ids = np.concatenate([drawn(*part, seed=i) for i, part in enumerate(train)])
    found = baselines.unlike(ids, drawn(*val, seed=9), np.ones(6, int))
    assert (found is not None) == is_unlike
    assert found is None or found[0] > baselines.UNLIKE * found[1]


def test_costs_are_those_of_the_counts_in_bits_per_byte():
    """Three of four are token 0, of two bytes, and one is token 1, of one, with half added."""
    costs = baselines._unigram_bpb(np.array([1, 1]), np.array([3, 1]), np.array([2, 1]))
    assert costs == pytest.approx(-(np.log2(3.5 / 5) + np.log2(1.5 / 5)) / 3)


@pytest.mark.parametrize("is_other", [False, True])
def test_a_run_says_that_the_end_of_its_text_is_unlike_the_rest(
    cfg, tiny, tmp_path, caplog, is_other
):
    """A book whose last tenth was numbers validated on numbers, without a word."""
    prose = "the cat walks under the old tree and sleeps beside the river. " * 400
    end = "3.14159 2.71828 1.41421 " * 120 if is_other else ""
    (tmp_path / "book.txt").write_text(prose + end, encoding="utf-8")
    setup.set_up(cfg(*tiny, "model=bigram", f"corpus.path={tmp_path / 'book.txt'}"), tmp_path)
    assert ("val/bpb tells of another kind of text" in caplog.text) == is_other
