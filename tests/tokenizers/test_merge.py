"""All ways to apply merges give the same ids: those of merging the lowest rank first."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.tokenizers import merge
from lm.tokenizers.merge import Merges
from tests.tokenizers import reference

A, B, C = b"abc"
BYTES = range(256)


def together(merger, chunks):
    """The ids of each chunk, when all are given to the merger at once."""
    length = np.array([len(chunk) for chunk in chunks], np.int64)
    ids, count = merger.encode_many(b"".join(chunks), np.cumsum(length) - length, length)
    assert len(count) == len(chunks)
    assert ids.dtype == np.int64
    return [part.tolist() for part in np.split(ids, np.cumsum(count)[:-1])][: len(chunks)]


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (b"", []),
        (b"c", [C]),
        (b"ab", [257]),
        (b"abc", [A, 256]),  # bc ranks before ab
        (b"cab", [C, 257]),
        (b"aaa", [258, A]),
        (b"aaab", [258, 257]),
        (b"abab", [259]),
        (b"ababbc", [259, 256]),
    ],
)
def test_the_lowest_rank_is_merged_first_and_the_leftmost_of_it(chunk, expected):
    merger = Merges([(B, C, 256), (A, B, 257), (A, A, 258), (257, 257, 259)], BYTES)
    assert merger.encode(chunk) == expected
    assert merger.merge_by_scan(list(chunk)) == expected
    assert merger.merge_by_heap(list(chunk)) == expected
    assert together(merger, [chunk] * 40) == [expected] * 40
    assert together(merger, [chunk]) == [expected]  # by itself


def test_a_merge_may_make_a_part_of_itself():
    """The heap then holds a pair twice, and the second time its right side is gone."""
    merger = Merges([(B, C, B), (A, B, A)], BYTES)
    assert merger.merge_by_heap(list(b"abc")) == merger.merge_by_scan(list(b"abc")) == [A]


@pytest.mark.parametrize("few", [1, 32])  # columns below which a matrix is left
def test_id_0_is_an_id(few, monkeypatch):
    monkeypatch.setattr(merge, "_FEW", few)
    merger = Merges([(A, 0, 256)], BYTES)
    chunk, expected = b"\x00a\x00\x00", [0, 256, 0]
    assert merger.merge_by_heap(list(chunk)) == expected
    assert together(merger, [chunk] * 40) == [expected] * 40
    assert together(merger, [b"b"] * 39 + [chunk]) == [[B]] * 39 + [expected]


def test_ranks_are_places_in_the_list_or_the_new_ids():
    merges = [(A, B, 257), (B, C, 256)]
    assert Merges(merges, BYTES).encode(b"abc") == [257, C]
    assert Merges(merges, BYTES, by_new_id=True).encode(b"abc") == [A, 256]


@pytest.mark.parametrize("n", [1, 10, 600])
def test_each_byte_has_the_id_that_was_given(n):
    ids = [1000 - byte for byte in BYTES]
    merger = Merges([(ids[A], ids[B], 256)], ids)
    expected = [256, ids[C], ids[255]] * n
    assert merger.encode(b"abc\xff" * n) == expected
    assert together(merger, [b"abc\xff" * n] * 40) == [expected] * 40


@pytest.mark.parametrize(
    ("merges", "in_order"),
    [
        ([], True),
        ([(A, B, 256), (256, C, 257)], True),
        ([(A, B, 256), (C, 256, 257)], True),
        ([(256, C, 257), (A, B, 256)], False),
        ([(C, 256, 257), (A, B, 256)], False),
        ([(A, B, 256), (256, C, 257), (B, B, 256)], False),  # a second way to make 256
        ([(B, B, 256), (A, B, 256), (256, C, 257)], True),
        ([(A, B, A)], False),  # it makes a part of itself
        ([(B, A, A)], False),
    ],
)
def test_merges_are_in_order_where_no_part_is_made_later(merges, in_order):
    assert Merges(merges, BYTES).in_order is in_order


def test_merges_by_new_id_are_in_the_order_of_their_ids():
    assert Merges([(257, C, 258), (A, B, 257)], BYTES, by_new_id=True).in_order
    assert not Merges([(A, B, 258), (258, C, 257)], BYTES, by_new_id=True).in_order


@pytest.mark.parametrize("length", [47, 48, 100, 2048, 2049])
def test_a_long_chunk_gets_the_ids_of_the_merges_in_turn(length):
    text = "".join(random.Random(length).choices("aab", k=length))
    merges = reference.train([text], 30, lambda t: [t])
    chunk = text.encode()
    expected = reference.encode(chunk, merges)
    merger = Merges(merges, BYTES)
    assert merger.encode(chunk) == merger.merge_by_heap(list(chunk)) == expected


def test_a_long_chunk_whose_merges_open_lower_ranks_is_merged_by_rank():
    """After the first ab its a is merged as well, so that the second b stays alone."""
    merger = Merges([(256, A, 257), (A, B, 256)], BYTES)
    assert merger.encode(b"abab" * 1000) == [257, B] * 1000


def test_numpy_makes_the_first_merges_of_a_long_chunk():
    merger = Merges([(A, A, 256), (256, B, 257), (257, 257, 258)], BYTES)
    ids = np.array(list(b"aaab" * 3 + b"aab" * 1000))
    assert merger._shrink(ids).tolist() == [256, A, B] * 3 + [258] * 500


def test_merges_of_less_than_one_id_in_200_are_left_to_the_heap():
    merger = Merges([(A, A, 256)], BYTES)
    for n_other, expected in ((198, [256]), (199, [A, A])):
        ids = np.array(list(b"c" * n_other + b"aa"))
        assert merger._shrink(ids).tolist() == [C] * n_other + expected


@pytest.mark.parametrize(
    ("hit", "odd"),
    [
        ("0", "0"),
        ("1", "0"),
        ("101", "000"),
        ("11", "01"),
        ("0110111", "0010010"),
        ("1111011", "0101001"),
    ],
)
def test_every_second_hit_of_a_run_is_odd(hit, odd):
    found = merge._odd_in_run(np.array([c == "1" for c in hit]))
    assert found.tolist() == [c == "1" for c in odd]


@pytest.mark.parametrize("few", [1, 32])  # columns below which a matrix is left
@pytest.mark.parametrize("by_new_id", [False, True])
def test_chunks_merged_together_get_the_ids_of_each_alone(by_new_id, few, monkeypatch):
    """Of every length, in matrices of few columns: one ends where the next begins."""
    rng = random.Random(0)
    ids = [A, B, 255, *range(256, 276)]
    pairs = [(left, right) for left in ids for right in ids]
    new = rng.sample(range(256, 346), 90)
    merges = [(*pair, new[k]) for k, pair in enumerate(rng.sample(pairs, 90))]
    merger = Merges(merges, BYTES, by_new_id=by_new_id)
    monkeypatch.setattr(merge, "_TOGETHER", 40)
    monkeypatch.setattr(merge, "_FEW", few)
    chunks = [bytes(rng.choices([A, B, 255], k=n % 52 + 1)) for n in range(156)]
    expected = [reference.encode_by_rank(chunk, merger.ranked) for chunk in chunks]
    assert together(merger, chunks) == expected
    assert [merger.merge_by_scan(list(chunk)) for chunk in chunks] == expected
    assert [merger.merge_by_heap(list(chunk)) for chunk in chunks] == expected


# --- any chunks and merges


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(
    chunks=st.lists(st.text("abc", max_size=70).filter(bool).map(str.encode), max_size=30),
    seed=st.integers(0, 99),
)
def test_scan_heap_and_rounds_agree_with_the_reference(chunks, seed):
    rng = random.Random(seed)
    documents = ["".join(rng.choices("abc", k=50)) for _ in range(5)]
    merges = reference.train(documents, rng.randrange(60), lambda t: [t])
    merger = Merges(merges, range(256))
    assert merger.in_order
    expected = [reference.encode(chunk, merges) for chunk in chunks]
    assert [merger.merge_by_scan(list(chunk)) for chunk in chunks] == expected
    assert [merger.merge_by_heap(list(chunk)) for chunk in chunks] == expected
    assert together(merger, chunks) == expected


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(
    words=st.sets(st.text("abc", min_size=2, max_size=6).map(str.encode), max_size=30),
    chunks=st.lists(st.text("abc", min_size=1, max_size=20).map(str.encode), min_size=40),
)
def test_rounds_need_no_order_of_the_merges(words, chunks):
    """In rank files a token may rank before its parts do."""
    ids = {word: 256 + k for k, word in enumerate(words)}
    ids |= {bytes([b]): b for b in range(256)}
    cuts = [(word[:k], word[k:], ids[word]) for word in words for k in range(1, len(word))]
    merges = [(ids[a], ids[b], new) for a, b, new in cuts if a in ids and b in ids]
    merger = Merges(merges, range(256), by_new_id=True)
    expected = [reference.encode_by_rank(chunk, merger.ranked) for chunk in chunks]
    assert together(merger, chunks) == expected


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(text=st.text("ab \n", max_size=12), more=st.text("abc", max_size=30))
def test_long_chunks_that_numpy_shrinks_agree_with_the_heap(text, more):
    merges = reference.train([text * 4 + more], 40, lambda t: [t])
    merger = Merges(merges, range(256))
    chunk = (text * 400 + more).encode() * 2 + b"ab" * 1200
    assert (
        merger.encode(chunk) == merger.merge_by_heap(list(chunk)) == reference.encode(chunk, merges)
    )
