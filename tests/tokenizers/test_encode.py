"""Ids, bytes and text: round trips, special tokens, streams, and equality with the peers."""

import itertools
import subprocess
import threading

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lm import tokenizers
from lm.tokenizers import base, bpe, stream, table
from lm.tokenizers.text import BLOCK_LEN
from tests.tokenizers import reference

EOT = tokenizers.EOT
# All of Unicode without surrogates, and text near what split patterns look at.
TEXT = st.text() | st.text(
    st.sampled_from(" \n\t'aslvre19.!\u00a0\u4e2d\u0301\U0001f600<|endoftext|>")
)


@pytest.fixture(scope="module")
def trained(library_text):
    return tokenizers.train("bpe", library_text, vocab_size=1025)


@pytest.fixture(scope="module", params=["byte", "gpt2", "gpt4", "custom"])
def any_tokenizer(request, library_text):
    if request.param == "byte":
        return tokenizers.train("byte", [])
    pattern = r"\S+|\s+" if request.param == "custom" else request.param
    return tokenizers.train("bpe", library_text, vocab_size=600, pattern=pattern)


def plain(tokenizer, text):
    """Split with regex, then every merge in turn: the slow way."""
    if tokenizer.name == "byte":
        return list(text.encode())
    chunks = regex.findall(tokenizer.splitter.pattern, text)
    return [i for c in chunks for i in reference.encode(c.encode(), tokenizer.merges)]


@settings(deadline=None, max_examples=60)
@given(text=TEXT)
def test_ids_equal_the_slow_way_and_decode_to_the_text(any_tokenizer, text):
    ids = any_tokenizer.encode_ordinary(text)
    assert ids == plain(any_tokenizer, text) == any_tokenizer.encode_to_numpy(text).tolist()
    assert any_tokenizer.decode(ids, errors="strict") == text


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=60) | TEXT.map(str.encode))
def test_any_bytes_come_back(any_tokenizer, data):
    assert any_tokenizer.decode_bytes(any_tokenizer.encode_bytes(data)) == data


def test_every_id_and_every_pair_of_ids_decodes_to_its_bytes(trained):
    every = range(trained.vocab_size - 1)
    assert trained.decode_bytes(every) == b"".join(map(trained.token_bytes, every))
    for a, b in itertools.product(range(0, 1024, 31), every):
        assert trained.decode_bytes([a, b]) == trained.token_bytes(a) + trained.token_bytes(b)


@pytest.mark.parametrize("many", [1, 1000])
@pytest.mark.parametrize("bad", [-1, -1025, 1025, 2**32, 2**70, 1.5, None, "a"])
def test_an_id_that_is_none_is_named(trained, bad, many):
    with pytest.raises(ValueError, match=r"is not an id: they are the integers 0\.\.1024"):
        trained.decode([0] * many + [bad])


def test_decode_of_arrays_and_lists_is_the_same(trained, library_text):
    ids = trained.encode_to_numpy(library_text[0])
    assert trained.decode(ids) == trained.decode(ids.tolist()) == library_text[0]
    with pytest.raises(ValueError, match="is not an id"):
        trained.decode(ids.astype(np.int64) - 300)
    with pytest.raises(ValueError, match="18446744073709551615 is not an id"):  # it became -1
        trained.decode(np.array([2**64 - 1] * 300, np.uint64))


def test_broken_utf8_follows_errors(trained):
    assert trained.decode([0xE4, 0xB8]) == "\ufffd"
    assert trained.decode([0xE4, 0xB8], errors="ignore") == ""
    with pytest.raises(UnicodeDecodeError):
        trained.decode([0xE4, 0xB8], errors="strict")


@settings(deadline=None)
@given(text=TEXT)
def test_a_decoded_stream_never_holds_half_a_character(any_tokenizer, text):
    parts = list(any_tokenizer.decode_stream(iter(any_tokenizer.encode_ordinary(text))))
    assert "".join(parts) == text
    assert "\ufffd" in text or not any("\ufffd" in part for part in parts)


def test_a_stream_that_ends_inside_a_character_shows_the_replacement(trained):
    assert "".join(trained.decode_stream([104, 0xE4, 0xB8])) == "h\ufffd"


@settings(deadline=None, max_examples=150)
@given(text=TEXT, cuts=st.lists(st.integers(0, 40)), allow=st.booleans())
def test_any_cutting_of_a_stream_gives_the_ids_of_the_whole(any_tokenizer, text, cuts, allow):
    marks = sorted({0, len(text), *(min(c, len(text)) for c in cuts)})
    chunks = [text[a:b] for a, b in itertools.pairwise(marks)]
    kwargs = {"allowed_special": "all"} if allow else {"disallowed_special": ()}
    streamed = list(any_tokenizer.encode_iterable(chunks, **kwargs))
    assert streamed == any_tokenizer.encode(text, **kwargs)


def test_a_long_stream_in_small_pieces_equals_the_whole(any_tokenizer, library_text):
    text = library_text[0][:60_000] + EOT + "\n\n  x" + "\n" * 5000 + " a" * 3000
    pieces = [text[k : k + 7] for k in range(0, len(text), 7)]
    streamed = list(any_tokenizer.encode_iterable(pieces, "all"))
    assert streamed == any_tokenizer.encode(text, "all")


def test_a_stream_holds_back_little(trained):
    """The first ids come long before the text ends."""
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield "some words and more of them "

    stream = trained.encode_iterable(endless())
    assert len(list(itertools.islice(stream, 50_000))) == 50_000
    assert taken < 50_000


def test_lines_without_spaces_stream_too(trained):
    """Chinese has no spaces, so a stream must be cut at its line breaks."""
    lines = ("\u4e2d\u6587\u3002\n" for _ in itertools.count())
    assert len(list(itertools.islice(trained.encode_iterable(lines), 50_000))) == 50_000


def test_a_stream_that_cannot_be_cut_warns_before_memory_is_full(library_text, monkeypatch):
    monkeypatch.setattr(stream, "WARN_LEN", 100_000)
    odd = tokenizers.train("bpe", library_text, vocab_size=300, pattern=r"\S+|\s+")
    with pytest.warns(UserWarning, match="characters are in memory"):
        assert list(odd.encode_iterable(library_text * 2)) == odd.encode(library_text[0] * 2)


# --- special tokens


def test_specials_in_text_are_refused_allowed_or_plain(trained):
    text = f"a{EOT}b"
    with pytest.raises(ValueError, match=r"'<\|endoftext\|>' at offset 1"):
        trained.encode(text)
    assert trained.encode(text, allowed_special="all") == [97, 1024, 98]
    assert trained.encode(text, allowed_special={EOT}) == [97, 1024, 98]
    ordinary = trained.encode(text, disallowed_special=())
    assert ordinary == trained.encode_ordinary(text)
    assert 1024 not in ordinary
    assert trained.decode(ordinary) == trained.decode([97, 1024, 98]) == text


def test_the_longest_special_wins_whatever_the_order():
    for names in itertools.permutations(["<|a|>", "<|a|><|b|>", "<|b|>"]):
        tokenizer = tokenizers.ByteTokenizer(names)
        assert tokenizer.encode("<|a|><|b|><|a|>", "all") == [
            tokenizer.specials["<|a|><|b|>"],
            tokenizer.specials["<|a|>"],
        ]


def test_specials_may_hold_any_character():
    names = [" ", "a b", "\n", "(?:x", "\u4e2d", "\\", "|"]
    tokenizer = tokenizers.ByteTokenizer(names)
    for name in names:
        assert tokenizer.encode(f"z{name}z", "all") == [122, tokenizer.specials[name], 122]


def test_an_unknown_special_is_named(trained):
    with pytest.raises(ValueError, match="<s>"):
        trained.encode("a", allowed_special={"<s>"})


def test_eot_is_the_last_id_and_weighs_nothing(trained):
    assert trained.eot_id == trained.vocab_size - 1 == 1024
    assert trained.token_bytes(1024) == b""
    lengths = trained.token_lengths()
    assert lengths.dtype == np.int64
    assert lengths.shape == (1025,)
    assert lengths[1024] == 0
    assert lengths[:256].tolist() == [1] * 256
    with pytest.raises(ValueError, match=r"no <\|endoftext\|>"):
        _ = tokenizers.ByteTokenizer(()).eot_id


# --- characters and surrogates


def test_unknown_character_error_names_the_character_and_its_offset():
    tokenizer = tokenizers.train("char", ["abc"])
    with pytest.raises(ValueError, match=r"'\u00e9' \(U\+00E9\) at offset 2 .*tokenizer=byte"):
        tokenizer.encode("ab\u00e9")
    long = "a" * (BLOCK_LEN + 5) + "\x07"
    with pytest.raises(ValueError, match=rf"'\\x07' \(U\+0007\) at offset {BLOCK_LEN + 5} "):
        tokenizer.encode(long)


def test_characters_get_sorted_ids_and_come_back():
    tokenizer = tokenizers.train("char", ["ba\n", "\U0001f600a"])
    assert tokenizer.encode("\nab\U0001f600") == [0, 1, 2, 3]
    assert tokenizer.decode([3, 0]) == "\U0001f600\n"
    assert tokenizer.vocab_size == 5


@pytest.mark.parametrize("n", [0, 1000, BLOCK_LEN + 1])
def test_a_lone_surrogate_is_an_error_with_its_offset_or_replaced(any_tokenizer, n):
    text = "a " * (n // 2) + "b\ud800"
    with pytest.raises(ValueError, match=rf"U\+D800 at offset {len(text) - 1}"):
        any_tokenizer.encode(text)
    replaced = any_tokenizer.encode(text, errors="replace")
    assert any_tokenizer.decode(replaced) == text[:-1] + "\ufffd"


def test_a_pair_of_surrogates_is_one_character_when_replaced(trained):
    assert trained.decode(trained.encode("\ud83d\ude00", errors="replace")) == "\U0001f600"


@pytest.mark.parametrize("bad", ["\ud800", "\u00e9", "<|b|>"])
def test_an_offset_counts_from_the_start_of_the_text_that_was_given(bad):
    """It once counted from the last special, or from where a stream was cut."""
    if bad == "\u00e9":
        tokenizer = tokenizers.CharTokenizer("a bx\n", ("<|a|>", "<|b|>"))
    else:
        tokenizer = tokenizers.BPETokenizer.of_merges([], "gpt2", ("<|a|>", "<|b|>"))
    text = "a b " * 2000 + "<|a|>" + "a b " * 3000 + "<|a|>x" + bad
    says = f"at offset {len(text) - len(bad)}\\b"
    with pytest.raises(ValueError, match=says):
        tokenizer.encode(text, {"<|a|>"})
    pieces = [text[k : k + 7] for k in range(0, len(text), 7)]
    with pytest.raises(ValueError, match=says):
        list(tokenizer.encode_iterable(pieces, {"<|a|>"}))


# --- documents and processes


def test_documents_come_back_in_order_one_array_each(any_tokenizer, library_text):
    documents = ["", *library_text[0][:30_000].split("\n"), "", library_text[0] * 3, ""]
    arrays = list(any_tokenizer.encode_documents(documents))
    assert [a.tolist() for a in arrays] == [any_tokenizer.encode_ordinary(d) for d in documents]
    assert {a.dtype for a in arrays} == {np.dtype(np.uint16)}


@pytest.mark.slow
def test_two_processes_give_the_ids_of_one(trained, library_text, monkeypatch):
    monkeypatch.setattr(base, "N_LOCAL", 1)
    documents = [*library_text[0].split("\n"), "", library_text[0] * 5]
    one = [a.tolist() for a in trained.encode_documents(documents)]
    assert [a.tolist() for a in trained.encode_documents(iter(documents), n_proc=2)] == one
    with pytest.raises(ValueError, match="U\\+D800 at offset 3"):
        list(trained.encode_documents(["abc", "abc\ud800"], n_proc=2))
    with pytest.raises(ValueError, match="n_proc=0"):
        list(trained.encode_documents(["abc"], n_proc=0))


def test_a_short_text_starts_no_process(trained, library_text, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    assert len(list(trained.encode_documents(library_text, n_proc=2))) == 1


@pytest.mark.slow
def test_an_iterator_left_early_ends_its_processes(trained, monkeypatch):
    monkeypatch.setattr(base, "N_LOCAL", 0)
    before = threading.active_count()
    results = trained.encode_documents(("word " * 200_000 for _ in range(50)), n_proc=2)
    next(results)
    results.close()
    assert threading.active_count() <= before + 2


@pytest.mark.slow
def test_forgetting_the_known_chunks_changes_nothing(trained, library_text, monkeypatch):
    expected = trained.encode_ordinary(library_text[0])
    monkeypatch.setattr(bpe, "MAX_KNOWN", 100)
    documents = [library_text[0][k : k + 2000] for k in range(0, 20_000, 2000)]
    for _ in range(2):
        joined = [i for d in documents for i in trained.encode_to_numpy(d).tolist()]
    assert joined == [i for d in documents for i in plain(trained, d)]
    assert trained.encode_ordinary(library_text[0]) == expected
    monkeypatch.setattr(bpe, "MAX_PIECE_LEN", 8)
    for short in [library_text[0][k : k + 300] for k in range(0, 9000, 300)] * 2:
        assert trained.encode_ordinary(short) == plain(trained, short)


# --- the peers


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
@settings(deadline=None, max_examples=200)
@given(text=TEXT)
def test_ids_equal_those_of_tiktoken(peers, pattern, text):
    """Characters newer than the Rust tables are left out: `regex` knows more of them."""
    ours, tiktoken_encoding, _ = peers[pattern]
    text = known_to_python(text)
    assert ours.encode_ordinary(text) == tiktoken_encoding.encode_ordinary(text)
    assert ours.encode(text, "all") == tiktoken_encoding.encode(text, allowed_special="all")


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
@settings(deadline=None, max_examples=200)
@given(text=TEXT)
def test_ids_equal_those_of_hugging_face(peers, pattern, text):
    ours, _, hf = peers[pattern]
    text = known_to_python(text)
    assert ours.encode(text, "all") == hf.encode(text).ids


@pytest.fixture(scope="module")
def peers(library_text, tmp_path_factory):
    tiktoken = pytest.importorskip("tiktoken")
    hf = pytest.importorskip("tokenizers")
    from lm.tokenizers import formats

    out = {}
    for pattern in ("gpt2", "gpt4"):
        ours = tokenizers.train("bpe", library_text, vocab_size=1025, pattern=pattern)
        ranks = {ours.token_bytes(i): i for i in range(1024)}
        rust = tiktoken.Encoding(
            "ours",
            pat_str=ours.splitter.pattern,
            mergeable_ranks=ranks,
            special_tokens=ours.specials,
        )
        path = tmp_path_factory.mktemp("hf") / "tokenizer.json"
        formats.to_hf(ours, path)
        out[pattern] = ours, rust, hf.Tokenizer.from_file(str(path))
    return out


def known_to_python(text: str) -> str:
    import unicodedata

    return "".join(c for c in text if unicodedata.category(c) != "Cn")


@pytest.mark.parametrize("clash", [False, True])
def test_keys_of_one_hash_are_kept_apart(monkeypatch, clash):
    """Whoever writes a text can make two chunks hash alike."""
    if clash:
        monkeypatch.setattr(table, "hash_keys", lambda lo, hi: (lo & np.uint64(1)) << np.uint64(63))
    lo, hi = np.random.default_rng(0).integers(0, 9, (2, 300)).astype(np.uint64)
    first, number = table.distinct(lo, hi)
    keys = list(zip(lo.tolist(), hi.tolist(), strict=True))
    assert len(first) == len(set(keys))
    assert [keys[first[k]] for k in number] == keys
    known = table.Table(4)
    known.insert(lo[first[:50]], hi[first[:50]], np.arange(50))
    expected = np.where(number < 50, number, -1)
    assert known.find(lo, hi).tolist() == expected.tolist()


def outcome(encode):
    try:
        return list(encode())
    except ValueError as error:
        return str(error)


SPECIAL = st.text("<ab>", min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(SPECIAL, min_size=1, max_size=4, unique=True),
    st.sets(st.integers(0, 3)),
    st.sets(st.integers(0, 3)) | st.just("all"),
    st.lists(st.text("<ab>", max_size=6), max_size=6),
)
def test_specials_that_overlap_are_refused_in_a_stream_as_in_a_text(specials, some, others, parts):
    tokenizer = tokenizers.ByteTokenizer(tuple(specials))
    allowed = {special for i, special in enumerate(specials) if i in some}
    disallowed = others
    if others != "all":
        disallowed = {special for i, special in enumerate(specials) if i in others}
    whole = outcome(lambda: tokenizer.encode("".join(parts), allowed, disallowed))
    assert outcome(lambda: tokenizer.encode_iterable(parts, allowed, disallowed)) == whole


def test_a_disallowed_special_that_begins_in_an_allowed_one_is_refused_everywhere():
    tokenizer = tokenizers.ByteTokenizer(("<a>", "><b"))
    for parts in (["<a><b"], ["<a>", "<b"], list("<a><b"), ["<a", "><", "b", ""]):
        for encode in (tokenizer.encode_iterable, lambda p, a: tokenizer.encode("".join(p), a)):
            with pytest.raises(ValueError, match="'><b' at offset 2: pass it"):
                list(encode(parts, {"<a>"}))


def test_a_refused_text_spoils_no_chunk_that_was_new_in_it(library_text):
    """What is new in a few blocks of text is learned at once, and the last may be refused."""
    tokenizer = tokenizers.train("bpe", library_text, vocab_size=500)
    documents = ["brandnew words, neverseen before " * 9000, "and more " * 9000 + "\ud800"]
    with pytest.raises(ValueError, match=r"U\+D800 at offset 81000"):
        list(tokenizer.encode_documents(documents))
    fresh = tokenizers.from_json(tokenizer.to_json())
    assert tokenizer.encode_ordinary(documents[0]) == fresh.encode_ordinary(documents[0])
