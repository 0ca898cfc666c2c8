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
    many = np.arange(1000) % 2  # PyTorch's other sort keeps the order of up to 16
    assert counts.sort(many)[1].tolist() == [*range(0, 1000, 2), *range(1, 1000, 2)]


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
    with pytest.raises(RuntimeError, match="Missing key") as error:
        SETTINGS[name].build(V).load_state_dict(tables)
    assert "size mismatch" not in str(error.value)  # of the tables behind it


def test_the_size_of_a_counted_model_is_that_of_its_tables():
    ids = np.array([0, 1, 0, 1, 2])  # three tokens; the pairs 0 1, 1 0 and 1 2
    for name, n_params in (("bigram_counts", 3), ("ngram", 6)):
        cfg = SETTINGS[name]
        if name == "ngram":
            cfg = type(cfg)(order=2)
        model = cfg.build(V)
        model.fit(ids)
        assert model.n_params() == n_params


@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
def test_a_model_that_has_counted_nothing_is_saved_and_loaded(name):
    new, again = (SETTINGS[name].build(V) for _ in range(2))
    assert new.n_params() == 0
    again.load_state_dict(new.state_dict())
    new.fit(np.array([], np.uint16))
    assert new.n_params() == 0
    again.load_state_dict(new.state_dict())
    torch.testing.assert_close(again(batch()).exp(), torch.full((*batch().shape, V), 1 / V))


@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
def test_only_the_counted_tables_are_saved(name):
    model = build(name)
    assert set(model.state_dict()) == set(model.tables)


@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
def test_a_count_may_be_as_large_as_2_to_the_40th(name):
    tables = build(name).state_dict()
    tables[[key for key in tables if "counts" in key][-1]][0] = 2**40
    SETTINGS[name].build(V).load_state_dict(tables)


def test_pairs_are_told_by_their_first_token():
    model = SETTINGS["bigram_counts"].build(4)
    model.fit(np.array([0, 2, 0, 2, 2, 3], np.uint16))  # 0 2 twice; 2 0, 2 2 and 2 3
    assert model.pairs.tolist() == [2, 8, 10, 11] and model.counts.tolist() == [2, 1, 1, 1]
    assert model.starts.tolist() == [0, 1, 1, 4, 4]
    assert model.totals.tolist() == [2, 0, 3, 0]


@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
def test_a_counted_model_remembers_as_many_tokens_as_its_longest_counts_hold_before_the_last(name):
    """Generation gives it so many, and the lens shows so many."""
    cfg = SETTINGS[name]
    assert cfg.build(V).memory == (0 if name == "bigram_counts" else cfg.order - 1)
