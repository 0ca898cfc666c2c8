"""Documents that repeat earlier ones: lm/corpora/near_duplicates.py and shingles.py."""

import itertools
import random
import re
import tracemalloc

import numpy as np
import pytest

from lm.corpora import near_duplicates
from lm.corpora.base import split
from lm.corpora.near_duplicates import MAX_HASHES, SHARE, Seen, groups, without
from lm.corpora.shingles import N_WORDS, shingles
from lm.system.schemas import Repeats


def words(text):
    """The words of a text by a regular expression: the slow judge of the numpy code."""
    lower = re.sub("[A-Z]", lambda match: match[0].lower(), text)
    return re.findall(r"[0-9a-z\u0080-\u1fff\u2080-\U0010ffff][0-9a-z\u0080-\u1fff]*", lower)


def runs(text):
    found = words(text)
    return [tuple(found[i : i + N_WORDS]) for i in range(len(found) - N_WORDS + 1)]


def slow_kept(documents):
    seen = set()
    kept = []
    for text in documents:
        own = runs(text)
        if sum(run in seen for run in own) <= SHARE * len(own):
            kept.append(text)
            seen.update(own)
    return kept


def prose(seed, n_words=40):
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=5)) for _ in range(n_words))


def planted(n=300, seed=0):
    """Documents of which every third holds a piece of an earlier one, of a random size."""
    rng = random.Random(seed)
    documents = []
    for i in range(n):
        text = prose((seed, i).__hash__(), rng.randrange(1, 80))
        if documents and i % 3 == 0:
            piece = rng.choice(documents).split()
            text += " " + " ".join(piece[: rng.randrange(len(piece) + 1)])
        documents.append(text)
    return documents


TEXTS = [
    "",
    "one two three four five six seven",
    "One, two: THREE four-five six seven eight nine",
    "Ünïcode wörds und mehr als acht davon in einer Zeile",
    "今天天气很好我们去公园",
    "“curly quotes” — and a dash… between eight words or more",
    "a\x00b\tc\r\nd e f g h i j",
    "\ud800 half a character and eight words after it then more",
    "emoji 😀😀 count as words by themselves one two three four",
    "x" * 300,
]


def test_runs_of_words_are_those_of_a_regular_expression():
    texts = TEXTS + planted(60)
    hashes, counts = shingles(texts)
    expected = [runs(text.encode("utf-8", "replace").decode()) for text in texts]
    assert counts.tolist() == [len(own) for own in expected]
    meaning = {}
    for run, value in zip(itertools.chain(*expected), hashes.tolist(), strict=True):
        assert meaning.setdefault(run, value) == value
    assert len(set(meaning.values())) == len(meaning) > 500


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_out_is_what_a_slow_search_leaves_out(seed):
    documents = planted(400, seed)
    repeats = Repeats("drop", 0)
    kept = list(without(documents, repeats))
    assert kept == slow_kept(documents)
    assert 20 < repeats.n_documents == len(documents) - len(kept)
    assert repeats.n_bytes == sum(map(len, documents)) - sum(map(len, kept))


def test_an_edited_copy_is_left_out_and_a_common_head_is_not():
    body = prose(1, 100)
    licence = prose(2, 20)
    edited = body.replace(" a", " z", 2).upper() + "!"
    other = f"{licence}\n{prose(3, 100)}"
    documents = [f"{licence}\n{body}", edited, other, "too short to repeat", "too short to repeat"]
    assert list(without(documents, Repeats("drop", 0))) == [documents[0], *documents[2:]]


def test_a_small_table_still_finds_long_copies_and_leaves_new_text_alone():
    new = [prose(i, 400) for i in range(200)]
    documents = new + new[::-1]
    kept = list(without(documents, Repeats("drop", 0), seen=Seen(1 << 12)))
    assert kept == new


@pytest.mark.parametrize("max_hashes", [1 << 9, 1 << 12, MAX_HASHES])
def test_what_is_found_does_not_depend_on_how_many_blocks_are_looked_up_at_once(
    monkeypatch, max_hashes
):
    monkeypatch.setattr(near_duplicates, "BLOCK_LEN", 2000)
    new = [prose(i % 150, 50 + i % 7) for i in range(250)]
    documents = [text + prose(1000 + i, i % 40) for i, text in enumerate(new)]

    def found():
        repeats = Repeats("drop", 0)
        kept = list(without(documents, repeats, seen=Seen(max_hashes)))
        return kept, repeats.n_documents, groups(documents, max_hashes)

    at_once = found()
    monkeypatch.setattr(near_duplicates, "BLOCKS", 1)
    assert at_once == found()
    assert 0 < at_once[1] < 250


def test_memory_does_not_grow_with_the_number_of_documents():
    documents = [prose(i, 30) for i in range(3000)]

    def peak(n):
        tracemalloc.start()
        for _ in without(documents[:n], Repeats("drop", 0), seen=Seen(1 << 8)):
            pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(1000)  # the tables that stay, whatever was hashed before
    assert peak(3000) < 1.2 * peak(1000)
    assert MAX_HASHES * 2 * 12 < 300e6  # bytes of the largest table: half full, 12 a slot


def test_a_text_of_many_characters_is_hashed_in_pieces():
    long = prose(1, 60_000)  # 360,000 characters
    short = prose(2)
    documents = [long, short, long + " and an end", short]
    assert list(without(documents, Repeats("drop", 0))) == [long, short]


def test_a_group_lies_on_one_side_of_the_split():
    documents = planted(600)
    root_of = groups(documents)
    assert len(root_of) > 40 and all(root < member for member, root in root_of.items())
    _, parts = split(documents, 0.5, root_of=root_of)
    sides = [side for side, _ in parts]
    assert all(sides[member] == sides[root] for member, root in root_of.items())
    _, parts = split(documents, 0.5)
    alone = [side for side, _ in parts]
    assert any(alone[member] != alone[root] for member, root in root_of.items())
    assert [s for i, s in enumerate(sides) if i not in root_of] == [
        s for i, s in enumerate(alone) if i not in root_of
    ]


def test_a_document_made_of_two_joins_their_groups():
    first = prose(1)
    second = prose(2)
    assert groups([first, second, f"{first} {second}"]) == {1: 0, 2: 0}


def test_few_documents_cannot_be_kept_together():
    with pytest.raises(ValueError, match=r"together: 1 of the 3 documents .* give drop or keep"):
        split(["a", "b", "c"], 0.5, root_of={1: 0})


def test_hashes_are_spread_evenly():
    hashes, _ = shingles([prose(0, 20_000)])
    for shift in (0, 20, 44):
        counts = np.bincount(((hashes >> np.uint64(shift)) & np.uint64(255)).astype(int))
        assert counts.min() > 40 and counts.max() < 125  # of 78 each; 5 sigmas are 44
