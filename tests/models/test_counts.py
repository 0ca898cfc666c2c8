"""What counted models are made of: sorted keys, looked up and cut into slices."""

import numpy as np
import pytest
import torch

from lm.models import counts
from lm.models.bigram_counts import unique_counts
from tests.models.small import SETTINGS, V, batch, build


def test_equal_keys_stay_in_their_order_when_sorted():
    keys, places = counts.sort(np.array([7, 5, 7, 5, 6]))
    assert keys.tolist() == [5, 5, 6, 7, 7] and places.tolist() == [1, 3, 4, 0, 2]


def test_the_first_of_each_value_is_marked():
    assert counts.is_first(np.array([1, 1, 2, 5, 5])).tolist() == [True, False, True, True, False]
    assert counts.is_first(np.array([], np.int64)).tolist() == []


def test_slices_follow_one_another_and_an_empty_one_is_skipped():
    row, index = counts.slices(torch.tensor([5, 0, 7]), torch.tensor([2, 0, 3]))
    assert row.tolist() == [0, 0, 2, 2, 2] and index.tolist() == [5, 6, 7, 8, 9]


def test_a_number_is_found_in_its_row_or_nowhere():
    keys = torch.tensor([2, 5, 9])
    wanted = torch.tensor([[1, 2, 5], [6, 9, 10]])
    assert counts.find(keys, wanted).tolist() == [[-1, 0, 1], [-1, 2, -1]]
    assert counts.find(keys[:0], wanted).tolist() == [[-1] * 3] * 2


@pytest.mark.parametrize("n_keys", [10, 1000])  # a table of all keys, or sorting
def test_distinct_keys_are_counted_either_way(n_keys):
    keys = np.random.default_rng(0).integers(0, 10, 100)
    found = unique_counts(keys, n_keys)
    expected = np.unique(keys, return_counts=True)
    assert all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
def test_tables_are_loaded_into_a_model_that_is_part_of_another(name):
    whole, fresh = (torch.nn.ModuleDict({"own": m}) for m in (build(name), SETTINGS[name].build(V)))
    fresh.load_state_dict(whole.state_dict())
    assert torch.equal(fresh["own"](batch()), whole["own"](batch()))


@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
def test_a_table_that_is_missing_is_an_error(name):
    tables = build(name).state_dict()
    del tables[next(key for key in tables if "counts" in key)]
    with pytest.raises(RuntimeError, match="Missing key"):
        SETTINGS[name].build(V).load_state_dict(tables)


def test_the_size_of_a_counted_model_is_that_of_its_tables():
    ids = np.array([0, 1, 0, 1, 2])  # three tokens; the pairs 0 1, 1 0 and 1 2
    for name, n_params in (("bigram_counts", 3), ("ngram", 6)):
        cfg = SETTINGS[name]
        if name == "ngram":
            cfg = type(cfg)(order=2)
        model = cfg.build(V)
        model.fit(ids)
        assert model.n_params() == n_params
