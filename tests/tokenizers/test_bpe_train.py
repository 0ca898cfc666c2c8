"""Training equals the slow reference, to the last merge."""

import os
import random
import subprocess
import sys
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm import tokenizers
from lm.tokenizers import base, bpe_train, count, text
from lm.tokenizers.bpe_train import MAX_TOKEN_BYTES, TIE_BREAKS, learn_merges
from lm.tokenizers.count import count_chunks
from lm.tokenizers.split import Splitter
from tests.tokenizers import reference

RUNS = st.text(st.sampled_from("aab b\n"), max_size=40)  # few letters: many ties and overlaps
ANY = st.text(max_size=40)


@pytest.mark.parametrize("tie_break", TIE_BREAKS)
@pytest.mark.parametrize("letters", ["a", "ab", "aab ", "abcdefgh"])
def test_merges_of_weighted_words_are_those_of_the_words_repeated(letters, tie_break):
    rng = random.Random(0)
    words = ["".join(rng.choices(letters, k=rng.randint(1, 60))) for _ in range(12)]
    counts = {word.encode(): rng.randint(1, 9) for word in words}
    documents = [word.decode() for word, count in counts.items() for _ in range(count)]
    expected = reference.train(documents, 60, lambda text: [text], tie_break)
    assert learn_merges(counts, 60, tie_break) == expected


def test_there_may_be_more_pairs_than_65536():
    counts = {bytes([a, b]): 1 for a in range(256) for b in range(256)}
    counts |= {b"yy": 2**58, b"zz": 2**58 + 1}
    assert learn_merges(counts, 3) == [(122, 122, 256), (121, 121, 257), (0, 0, 258)]


def test_three_equal_letters_are_one_pair_and_a_letter():
    assert learn_merges({b"aaa": 1}, 5) == [(97, 97, 256), (256, 97, 257)]


def test_what_ends_a_chunk_belongs_to_no_pair():
    """de ends both chunks; as c joins it, the count of aa, the first pair, stays what it was."""
    merges = learn_merges({b"cde": 5, b"de": 5, b"aa": 4}, 9)
    assert merges == [(100, 101, 256), (99, 256, 257), (97, 97, 258)]


def test_positions_take_32_bits_as_long_as_these_hold_them():
    assert bpe_train._integer_up_to(2**31 - 1) is np.int32
    assert bpe_train._integer_up_to(2**31) is np.int64


@pytest.mark.parametrize("tie_break", TIE_BREAKS)
@settings(deadline=None, max_examples=150)
@given(documents=st.lists(RUNS | ANY, max_size=6), whole=st.booleans())
def test_merges_equal_the_reference_to_the_last_one(tie_break, documents, whole):
    split = (lambda text: [text]) if whole else Splitter("gpt4").chunks
    counts = Counter(chunk.encode() for text in documents for chunk in split(text))
    expected = reference.train(documents, 500, split, tie_break)
    assert learn_merges(counts, 500, tie_break) == expected


@settings(deadline=None, max_examples=100)
@given(documents=st.lists(ANY | RUNS, max_size=6), name=st.sampled_from(["gpt2", "gpt4"]))
def test_counts_equal_those_of_plain_splitting(documents, name):
    splitter = Splitter(name)
    plain = Counter(chunk.encode() for text in documents for chunk in splitter.chunks(text))
    assert count_chunks(documents, splitter) == plain


def test_first_pair_takes_the_lowest_ids_and_greatest_bytes_the_greatest_strings():
    counts = {b"ab": 2, b"yz": 2, b"az": 2}
    assert learn_merges(counts, 1, "first-pair") == [(97, 98, 256)]
    assert learn_merges(counts, 1, "greatest-bytes") == [(121, 122, 256)]


@pytest.mark.parametrize("b", [b"b", b"\0"])
def test_greatest_bytes_puts_a_longer_string_above_its_prefix(b):
    """After ab: (ab, z) and (a, y) tie, and ab > a although it is the longer."""
    counts = {b"a" + b: 9, b"a" + b + b"z": 3, b"ay": 3}
    assert learn_merges(counts, 2, "greatest-bytes")[1] == (256, 122, 257)


def test_counts_beyond_32_bits_do_not_overflow():
    merges = learn_merges({b"ab": 2**40, b"cd": 2**40 + 1, b"ef": 2**33}, 3)
    assert [m[:2] for m in merges] == [(99, 100), (97, 98), (101, 102)]
    assert learn_merges({b"ab": 2**58, b"cd": 2**58 + 1}, 1) == [(99, 100, 256)]  # no float64


def test_counts_that_could_overflow_are_refused():
    with pytest.raises(ValueError, match="2\\^62"):
        learn_merges({b"ab": 2**60, b"cd": 2**60}, 1)
    assert learn_merges({b"ab": 2**60, b"cd": 2**60 - 1}, 1) == [(97, 98, 256)]


def test_chunks_of_one_byte_teach_nothing():
    assert learn_merges({b"a": 9}, 5) == learn_merges({}, 5) == []


def test_a_tie_break_that_is_none_is_refused():
    with pytest.raises(ValueError, match="tie_break=last is not one of first-pair, greatest-bytes"):
        learn_merges({b"ab": 1}, 1, "last")


def test_a_vocabulary_the_text_cannot_fill_ends_early_with_a_warning():
    with pytest.warns(UserWarning, match="259 tokens only, not vocab_size=1000"):
        tokenizer = tokenizers.train("bpe", ["aaaa"], vocab_size=1000)
    assert tokenizer.vocab_size == 259


@pytest.mark.parametrize("vocab_size", [0, 100, 256])
def test_a_vocabulary_smaller_than_the_bytes_is_refused(vocab_size):
    with pytest.raises(ValueError, match="below 257"):
        tokenizers.train("bpe", ["text"], vocab_size=vocab_size)


def test_specials_in_the_text_are_neither_counted_nor_merged_across():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = tokenizers.train("bpe", ["x<|endoftext|>y" * 9], vocab_size=400, pattern="gpt2")
    assert tokenizer.show(256) == "yx"
    assert tokenizer.vocab_size == 258
    assert tokenizers.train("char", ["x<|endoftext|>y"]).vocab_size == 3


@pytest.mark.parametrize(
    ("n_merge", "told"), [(13, [13]), (64, [64, 64]), (130, [64, 128, 130]), (0, [0])]
)
def test_progress_tells_every_64_merges_and_the_last(n_merge, told):
    calls = []
    counts = {bytes([k, k + 1]): 1 for k in range(200)}
    learn_merges(counts, n_merge, progress=lambda *call: calls.append(call))
    assert calls == [(done, n_merge) for done in told]


def test_progress_reaches_the_caller_of_train():
    calls = []
    text = "pack my box with five dozen liquor jugs"
    tokenizers.train("bpe", [text], vocab_size=270, progress=lambda *call: calls.append(call))
    assert calls[-1] == (13, 13)


def test_one_training_gives_every_smaller_vocabulary(library_text):
    large = tokenizers.train("bpe", library_text, vocab_size=700)
    for n in (257, 258, 300, 512, 700):
        small = tokenizers.train("bpe", library_text, vocab_size=n)
        assert large.truncate(n).to_json() == small.to_json()


def test_training_is_the_same_for_every_hash_seed_and_order_of_documents(library_text):
    code = (
        "import sys; from lm import tokenizers as t; d = sys.stdin.read().split('|');"
        "print(t.train('bpe', d, vocab_size=400).fingerprint)"
    )
    parts = "|".join(library_text[0][i : i + 500] for i in range(0, 20_000, 500))
    prints = set()
    for seed in ("0", "7"):
        parts = "|".join(reversed(parts.split("|")))
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code], input=parts, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        prints.add(done.stdout)
    assert len(prints) == 1


def test_a_token_may_have_1024_bytes_and_no_more():
    """Ten merges double a to 1024 of them; neither two such nor one more letter are merged."""
    doubled = [(97, 97, 256), *[(k - 1, k - 1, k) for k in range(257, 266)]]
    assert learn_merges({b"a" * 4096: 1}, 20) == doubled
    assert learn_merges({b"a" * 1024: 1, b"a" * 1024 + b"b": 1}, 20) == doubled


def test_no_token_is_longer_than_the_limit_and_what_is_saved_can_be_read(tmp_path):
    """A text of one letter doubled the longest token with each merge."""
    trained = tokenizers.train("bpe", ["a" * 200_000], vocab_size=268)
    assert trained.token_lengths().max() == MAX_TOKEN_BYTES == 1024
    trained.save(tmp_path / "t.json")
    assert tokenizers.load(tmp_path / "t.json").fingerprint == trained.fingerprint
    assert trained.decode(trained.encode("a" * 5000)) == "a" * 5000


def test_a_tokenizer_too_large_to_be_read_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"t\.json would have .* bytes, .* may have 1,000: give a"):
        tokenizers.train("bpe", ["abc"], vocab_size=257).save(tmp_path / "t.json")
    assert not list(tmp_path.iterdir())


def test_a_text_of_a_single_word_is_counted_in_parts_and_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(count, "LONGEST", 1 << 10)
    splitter = Splitter("gpt4")
    counted = count_chunks(["a" * 1_000_000], splitter)
    assert sum(len(chunk) * n for chunk, n in counted.items()) == 1_000_000
    assert len(counted) <= 3 and max(map(len, counted)) <= text.BLOCK_LEN + (1 << 10)
    monkeypatch.setattr(count, "MAX_LONG_BYTES", 40)
    with pytest.warns(UserWarning, match="learned from the first 0 MB of long words"):
        counted = count_chunks([" ".join(c * 20 for c in "abcdef"), "ab"], splitter)
    assert counted == {b"a" * 20: 1, b"ab": 1}


def test_a_stretch_without_a_place_to_cut_has_a_limit(monkeypatch):
    monkeypatch.setattr(text, "MAX_STRETCH", 1 << 18)
    long = "a b " * 50_000 + "c" * (1 << 20)
    bpe = tokenizers.BPETokenizer.of_merges([], "gpt4")
    for encode in (bpe.encode, bpe.encode_ordinary, lambda t: list(bpe.encode_iterable([t]))):
        with pytest.raises(
            ValueError, match=r"characters from offset .* and 262,144 are allowed: use"
        ):
            encode(long)
    assert len(tokenizers.ByteTokenizer().encode(long)) == len(long)
