"""Boundaries found by numpy equal plain findall with the published patterns."""

import functools
import itertools
import re
import time
from collections import Counter

import numpy as np
import pytest
import regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm.tokenizers import BPETokenizer, split
from lm.tokenizers.char_classes import classify
from lm.tokenizers.count import count_chunks
from lm.tokenizers.patterns import GPT4, PATTERNS, SplitPattern
from lm.tokenizers.split import Splitter, find_chunks
from tests.tokenizers import reference

# Every class of character that decides a boundary, so that short strings cover every neighbourhood.
ALPHABETS = [
    " \na1.'s",
    " \t\nx9'l",
    " \r\n\u00a0\u0301e\u4e2d",
    "'lLsS\u017f vVeE",
    "\u0660\u00bd1 a\n",
    "'srerm .",
    "\x1c \u3000a!\n\x85",
]
# Split patterns that are not ours, made of the same kinds of parts: Qwen, nanochat, o200k, and
# cl100k as tiktoken 0.14 spells it.
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
OTHERS = [
    rf"{ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDINGS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDINGS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
]
TEXT = (
    st.text(st.sampled_from(" \n\t\r'aslvre19.!/\u00a0\u017f\u4e2d\u0301\U0001f600\x1c\u2028"))
    | st.text()
)


BEGIN, END = "\ud800", "\ud801"  # marks around a chunk: no text in UTF-8 holds one
MARKS = {
    mark: np.frombuffer(mark.encode("utf-8", "surrogatepass"), np.uint8) for mark in BEGIN + END
}


def by_numpy(splitter: Splitter, texts: list[str]) -> tuple[bytes, list[int]]:
    """The texts with a mark around each chunk, and how many chunks each has."""
    assert splitter.starts is not None
    data, start, length, text_of = find_chunks(splitter.starts, texts, [t.encode() for t in texts])
    at = np.concatenate([start + length, start]).repeat(3)  # where both, an end comes first
    n = len(start)
    marks = np.concatenate([np.tile(MARKS[END], n), np.tile(MARKS[BEGIN], n)])
    marked = np.insert(np.frombuffer(data, np.uint8), at, marks)
    return marked.tobytes(), np.diff(text_of).tolist()


def by_findall(splitter: Splitter, texts: list[str]) -> tuple[bytes, list[int]]:
    findall = regex.compile(splitter.pattern).findall
    found = [findall(text) for text in texts]
    between = END + BEGIN
    marked = "\0".join(BEGIN + between.join(chunks) + END if chunks else "" for chunks in found)
    return marked.encode("utf-8", "surrogatepass"), [len(chunks) for chunks in found]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_all_short_strings_split_as_by_findall(name, alphabet):
    splitter = Splitter(name)
    texts = ["".join(p) for n in range(5) for p in itertools.product(alphabet, repeat=n)]
    assert by_numpy(splitter, texts) == by_findall(splitter, texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_all_strings_of_five_split_as_by_findall(name, alphabet):
    splitter = Splitter(name)
    product = itertools.product(alphabet, repeat=5)
    while texts := ["".join(p) for p in itertools.islice(product, 50_000)]:
        assert by_numpy(splitter, texts) == by_findall(splitter, texts)


@pytest.mark.parametrize("name", PATTERNS)
@settings(deadline=None, max_examples=300)
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_any_texts_side_by_side_split_as_each_alone(name, texts):
    splitter = Splitter(name)
    assert by_numpy(splitter, texts) == by_findall(splitter, texts)


@pytest.mark.parametrize("name", [*PATTERNS, *OTHERS])
@settings(deadline=None, max_examples=300)
@given(text=TEXT, at=st.integers(0, 60))
def test_a_safe_cut_changes_no_chunk(name, text, at):
    splitter = Splitter(name)
    for cut in (splitter.safe_cut(text, at), splitter.last_safe_cut(text)):
        assert splitter.chunks(text[:cut]) + splitter.chunks(text[cut:]) == splitter.chunks(text)


@pytest.mark.parametrize("name", [*PATTERNS, *OTHERS])
@settings(deadline=None, max_examples=300)
@given(text=TEXT, more=TEXT)
def test_the_last_safe_cut_holds_whatever_text_follows(name, text, more):
    splitter = Splitter(name)
    cut = splitter.last_safe_cut(text)
    whole = text + more
    assert splitter.chunks(whole[:cut]) + splitter.chunks(whole[cut:]) == splitter.chunks(whole)


@pytest.mark.parametrize("name", [*PATTERNS, *OTHERS])
@settings(deadline=None, max_examples=300)
@given(text=TEXT)
def test_pieces_join_to_the_text_and_split_by_themselves(name, text):
    splitter = Splitter(name)
    pieces = splitter.pieces(text)
    assert "".join(pieces) == text
    assert [c for piece in pieces for c in splitter.chunks(piece)] == splitter.chunks(text)


@pytest.mark.parametrize("name", [*PATTERNS, *OTHERS])
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_no_short_string_changes_where_it_is_cut_or_falls_into_pieces(name, alphabet):
    splitter = Splitter(name)
    chunks = functools.cache(splitter.chunks)  # most parts are short strings, too
    for text in map("".join, itertools.product(alphabet[:6] + "/", repeat=4)):
        whole = chunks(text)
        cut = splitter.last_safe_cut(text)
        assert chunks(text[:cut]) + chunks(text[cut:]) == whole
        pieces = splitter.pieces(text)
        assert "".join(pieces) == text
        assert [c for piece in pieces for c in chunks(piece)] == whole


def test_what_regex_takes_for_white_space_re_does_too():
    """Or a piece could end before a space that follows one."""
    assert all(re.match(r"\s", c) for c in regex.findall(r"\s", "".join(map(chr, range(0x110000)))))


def test_other_patterns_of_published_parts_are_cut_but_are_not_ours():
    for pattern in OTHERS:
        splitter = Splitter(pattern)
        assert splitter.has_safe_cuts and splitter.starts is None
    # that of tiktoken 0.14 ends the text in one chunk of white space
    assert splitter.chunks("a\n ") == ["a", "\n "]
    assert Splitter("gpt4").chunks("a\n ") == ["a", "\n", " "]


@settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(text=TEXT)
@pytest.mark.parametrize("third", [r"\p{L}+|\P{L}+", OTHERS[0]])
def test_a_pattern_added_by_name_alone_is_split_by_regex(third, text, monkeypatch):
    """Every name but gpt2 once got the boundaries of gpt4."""
    monkeypatch.setitem(PATTERNS, "third", SplitPattern(third))
    expected = regex.findall(third, text)
    assert Splitter("third").chunks(text) == expected
    assert count_chunks([text], Splitter("third")) == Counter(c.encode() for c in expected)
    tokenizer = BPETokenizer.of_merges([(97, 32, 256)], "third")
    ids = [i for c in expected for i in reference.encode(c.encode(), tokenizer.merges)]
    assert tokenizer.encode_to_numpy(text).tolist() == tokenizer.encode_ordinary(text) == ids


def test_a_pattern_of_other_parts_is_never_cut():
    for pattern in (r"\S+|\s+", r"(?s:.)", GPT4 + "|x", r"[^ ]+\n\S|\S|\s"):
        splitter = Splitter(pattern)
        assert splitter.safe_cut("a b\nc", 0) == 5
        assert splitter.last_safe_cut("a b\nc") == 0
        assert splitter.pieces("a b\nc") == ["a b\nc"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
def test_every_code_point_splits_as_by_findall(name):
    """All 1,112,064 of them, where each class of character makes other chunks; of the first plane,
    where all that the patterns name stands, beside apostrophes and line breaks, too."""
    splitter = Splitter(name)
    points = [c for c in map(chr, range(0x110000)) if not 0xD800 <= ord(c) < 0xE000]
    for k in range(0, len(points), 20_000):
        rich = points[k : min(k + 20_000, 0xF800)]
        texts = [f"a{c}b 1{c}{c} .{c}'{c}s\n{c} {c}" for c in rich]
        texts.append("".join(f"a{c} {c}{c}1" for c in points[k : k + 20_000]))
        assert by_numpy(splitter, texts) == by_findall(splitter, texts)


def test_classes_of_ascii_equal_those_of_unicode():
    ascii_only = "".join(map(chr, range(128)))
    plain, _ = classify(ascii_only)
    wide, _ = classify(ascii_only + "\u4e2d")
    assert np.array_equal(plain[:-1], wide[:-2])


@pytest.mark.parametrize(
    "spelling",
    [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ],
)
@settings(deadline=None, max_examples=300)
@given(text=TEXT)
def test_other_spellings_of_the_patterns_split_the_same(spelling, text):
    splitter = Splitter(spelling)
    assert splitter.starts is not None
    assert regex.findall(spelling, text) == splitter.chunks(text)


@pytest.mark.parametrize("bad", ["(", "[a", "", "a" * 10_001, r"(?P<x", "\\p{Nonsense}"])
def test_a_pattern_that_does_not_compile_is_refused(bad):
    with pytest.raises(ValueError, match="split pattern"):
        Splitter(bad)


def test_a_pattern_that_skips_text_is_refused_before_text_is_lost():
    with pytest.raises(ValueError, match="leaves out part of the text"):
        Splitter(r"\w+")
    with pytest.raises(ValueError, match="leaves out part of the text"):
        Splitter(r"[^q]+").chunks("aqa")


@pytest.mark.parametrize(
    "pattern",
    [
        *("(" * 25 + "a" + f"){repeat}" * 25 for repeat in ("+", "*", "?", "++", "+?", "{2,3}")),
        "(?:" * 3 + "a" + "){999}" * 3,
        "(?:(?:a{0,99}){,99}){2,99}",
        "(?:(?:a{99}){99}){20,}",
        "a{999}" * 1000,
        "(?:ab[)]c{999}\\)){99}" * 3,
    ],
)
def test_a_pattern_that_is_huge_with_its_repeats_written_out_is_refused(pattern):
    """25 groups with a + around each other took over 3 GB to compile."""
    with pytest.raises(ValueError, match="parts with its repeats written out"):
        Splitter(pattern + r"|[\s\S]")


@pytest.mark.parametrize(
    "pattern",
    [
        "(?:" * 8 + "a" + ")+" * 8,
        "a{1,999}" * 90,
        r"(?:\(a[()+]+\)+)" * 50,  # side by side, and brackets that are no group
        r"(?:\p{L}\p{M}*)+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*",
        "(?:a{99}){99}",
    ],
)
def test_other_repeats_are_taken(pattern):
    Splitter(pattern + r"|[\s\S]")


@pytest.mark.parametrize("part", ["(?:|x){1000000}", "x{1000000000}", "x{0,1000}", "x{,99999}"])
def test_a_pattern_with_a_long_repeat_is_refused(part):
    """The first ended the process, the second took gigabytes."""
    with pytest.raises(ValueError, match="1,000 times or more"):
        Splitter(rf"{part}y|[\s\S]")


RUN_AWAY = [
    r"(x|xx|xxx)+y", r"(?:(?:x?){50}){50}y", r"(?:x{0,99}){0,99}y", r"((?:x|xx)*?)*y",
    r"(?:(?=x)x|xx)*z", "(?R)", r"(?=(x+x+)+y)x", r"(x+)+\1y", r"(?:x*+x*)*y", r"(?p)(x+x+)+y",
]  # fmt: skip


@pytest.mark.parametrize(
    "pattern", [RUN_AWAY[0], *(pytest.param(p, marks=pytest.mark.faults) for p in RUN_AWAY[1:])]
)
def test_a_pattern_that_runs_away_is_stopped_by_the_clock(pattern, monkeypatch):
    """Some do so on the probes, at load; the others on a text, each of whose chunks is slow."""
    monkeypatch.setattr(split, "_SECONDS", 0.1)
    monkeypatch.setattr(split, "_SECONDS_PER_CHAR", 1e-6)
    began = time.process_time()
    with pytest.raises(ValueError, match="possessive"):
        Splitter(rf"{pattern}|[\s\S]").chunks("x" * 100_000)
    assert time.process_time() - began < 5
