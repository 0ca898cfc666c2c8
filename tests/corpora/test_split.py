"""How text is divided into train and val: lm/corpora/base.py."""

import itertools
import os
import random
import tracemalloc

import pytest

from lm.config import ShakespeareConfig
from lm.corpora.base import MANY, Corpus, split

needs_data = pytest.mark.skipif(
    not os.environ.get("LM_DATA_DIR"), reason="LM_DATA_DIR names no folder with shakespeare.txt"
)


def sides(documents, val_fraction=0.1, tails=False):
    """(kind, train documents, val documents)"""
    kind, parts = split(documents, val_fraction, tails=tails)
    parts = list(parts)
    return kind, [t for side, t in parts if side == "train"], [t for s, t in parts if s == "val"]


def many(n):
    return [f"document number {i}" for i in range(n)]


@needs_data
def test_shakespeare_splits_at_the_character_everybody_splits_it_at():
    kind, train, val = sides(ShakespeareConfig().build().documents())
    assert (kind, len(train), len(val)) == ("position", 1, 1)
    assert (len(train[0]), len(val[0])) == (1_003_854, 111_540)


def test_few_documents_are_cut_by_position_and_nothing_is_lost():
    documents = ["abcdef", "", "ghij", "k" * 10]
    kind, train, val = sides(documents, 0.6)
    assert (kind, train, val) == ("position", ["abcdef", "gh"], ["ij", "k" * 10])


def test_of_a_few_files_each_has_its_end_in_val_and_nothing_is_lost():
    documents = ["abcdefghij", "", "k" * 5, "x"]
    kind, train, val = sides(documents, 0.2, tails=True)
    assert (kind, train, val) == ("tails", ["abcdefgh", "kkkk", "x"], ["ij", "k"])
    assert sides(["abcdefghij"], 0.2, tails=True)[0] == "position"  # a single one as ever
    assert sides(many(MANY), tails=True)[0] == "document"


def test_files_too_short_to_be_cut_are_refused():
    with pytest.raises(ValueError, match=r"each of the 2 documents .* too short .*give more text"):
        sides(["a", "b"], tails=True)


def test_a_cut_between_two_documents_leaves_both_whole():
    assert sides(["a" * 9, "b"]) == ("position", ["a" * 9], ["b"])


@pytest.mark.parametrize("fraction", [0.001, 0.1, 1 / 3, 0.5, 0.9])
def test_position_split_has_the_asked_share_to_the_character(fraction):
    _, train, val = sides(["x" * 1000], fraction)
    assert abs(len(val[0]) - 1000 * fraction) < 1 and len(train[0]) + len(val[0]) == 1000


def test_ninety_nine_documents_are_cut_and_a_hundred_are_dealt():
    assert sides(many(MANY - 1))[0] == "position"
    assert sides(many(MANY))[0] == "document"
    assert sides([*many(MANY - 1), ""])[0] == "position"  # an empty one does not count


def test_many_documents_keep_their_order_and_each_goes_to_one_side():
    """Once the first document after those held back was lost: zip takes one before it stops."""
    documents = many(2000)
    _, train, val = sides(documents)
    assert sorted(train + val) == sorted(documents)
    assert train == [d for d in documents if d in set(train)]
    assert 140 < len(val) < 260  # 200 expected, 4.5 standard deviations


def test_copies_of_a_document_are_on_one_side():
    _, train, val = sides(random.Random(0).choices(many(300), k=3000))
    assert not set(train) & set(val)


def test_a_document_keeps_its_side_when_the_corpus_grows_or_is_shuffled():
    _, _, before = sides(many(500))
    more = many(1000)
    random.Random(0).shuffle(more)
    assert set(before) <= set(sides(more)[2])


def test_the_sides_are_the_same_in_every_process_and_on_every_machine():
    """Python's own hash() would deal the documents anew in each process."""
    assert [text.split()[-1] for text in sides(many(200))[2][:5]] == ["0", "9", "11", "20", "21"]


def test_a_larger_fraction_only_adds_to_val():
    assert set(sides(many(1000), 0.1)[2]) <= set(sides(many(1000), 0.2)[2])


@pytest.mark.parametrize("documents", [[], [""], [""] * 200])
def test_a_corpus_without_text_is_an_error_that_names_it(documents):
    with pytest.raises(ValueError, match="corpus mine holds no text"):
        split(documents, 0.1, "mine")


def test_one_character_cannot_be_divided():
    with pytest.raises(ValueError, match=r"has 1 characters.*give more text"):
        split(["x"], 0.1)


@pytest.mark.parametrize(("fraction", "side"), [(0.001, "val"), (0.9, "train")])
def test_equal_documents_leave_one_side_empty_and_the_error_says_which(fraction, side):
    _, parts = split(["the same"] * 100, fraction)
    with pytest.raises(ValueError, match=f"leaves no document for {side} out of the 100"):
        list(parts)


def test_a_lone_surrogate_does_not_break_the_hash():
    assert sides([*many(100), "\ud800"])[0] == "document"


def test_endless_documents_are_streamed():
    endless = (f"{i} " + "x" * 10_000 for i in itertools.count())
    tracemalloc.start()
    _, parts = split(endless, 0.1)
    for _ in itertools.islice(parts, 2000):  # 20 MB
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MANY * 10_000


def test_a_corpus_knows_no_facts_unless_it_says_so():
    assert Corpus(None).facts() == {}
