"""A shuffled order that takes no memory."""

import numpy as np
import pytest

from lm.data.permutation import Permutation


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 1000, 99_991])
def test_each_number_stands_in_one_place(n):
    order = Permutation(n, seed=n)[np.arange(n)]
    assert (np.sort(order) == np.arange(n)).all()


def test_a_place_is_found_alone_in_an_order_of_any_length():
    order = Permutation(10**15, seed=1)
    places = np.array([0, 1, 10**15 - 1])
    together = order[places]
    assert len(set(together.tolist())) == 3
    assert (together >= 0).all() and (together < 10**15).all()
    assert [order[places[i : i + 1]][0] for i in range(3)] == together.tolist()


def test_the_order_is_as_if_drawn():
    """Bounds are 5 standard deviations of an order that is drawn: they hold for these seeds."""
    n = 10_000
    first = Permutation(n, seed=1)[np.arange(n)]
    second = Permutation(n, seed=2)[np.arange(n)]
    assert abs(np.corrcoef(first, np.arange(n))[0, 1]) < 0.05
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.05
    assert np.count_nonzero(first == np.arange(n)) < 7  # 1 is expected
    # Of neighbours as many are in order as not: n / 2, with a deviation of sqrt(n / 12).
    assert abs(np.count_nonzero(np.diff(first) > 0) - n / 2) < 150
    cells, _, _ = np.histogram2d(np.arange(n), first, bins=10)  # 100 each, deviation 10
    assert np.abs(cells - 100).max() < 50
