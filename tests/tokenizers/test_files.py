"""Tokenizer files: a round trip keeps everything, and whatever is wrong is said in one line."""

import contextlib
import json
import os
import pickle
import time
import warnings

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lm import tokenizers
from lm.tokenizers import files
from tests.helpers import timed

SMALL = [(104, 105, 256), (256, 33, 257)]  # hi, hi!


def small(**kwargs) -> tokenizers.BPETokenizer:
    return tokenizers.BPETokenizer.of_merges(SMALL, **kwargs)


@pytest.fixture(params=["char", "byte", "bpe", "custom"])
def tokenizer(request):
    specials = ("<|endoftext|>", "a b\n", "\u4e2d")
    if request.param == "char":
        return tokenizers.CharTokenizer("ab\n \u4e2d\U0001f600", specials)
    if request.param == "byte":
        return tokenizers.ByteTokenizer(specials)
    return small(pattern=r"\S+|\s+" if request.param == "custom" else "gpt2", specials=specials)


def test_a_saved_tokenizer_comes_back_the_same(tokenizer, tmp_path):
    path = tmp_path / "sub dir \u00e9" / "t.json"
    tokenizer.save(path)
    again = tokenizers.load(path)
    assert type(again) is type(tokenizer)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.to_json() == tokenizer.to_json() == path.read_text(encoding="utf-8")
    assert again.specials == tokenizer.specials
    text = "ab\n \u4e2d\U0001f600"
    assert again.encode(text, "all") == tokenizer.encode(text, "all")
    assert [again.show(i) for i in range(again.vocab_size)] == [
        tokenizer.show(i) for i in range(again.vocab_size)
    ]


def test_fingerprints_tell_apart_whatever_changes_ids():
    variants = [
        small(),
        small(pattern="gpt2"),
        small(specials=()),
        small(specials=("<s>",)),
        tokenizers.BPETokenizer.of_merges(SMALL[:1]),
        tokenizers.ByteTokenizer(),
        tokenizers.CharTokenizer("ab"),
        tokenizers.CharTokenizer("abc"),
    ]
    assert len({t.fingerprint for t in variants}) == len(variants)
    assert small().fingerprint == small().fingerprint


def test_another_regex_version_changes_the_fingerprint_and_warns_on_load(monkeypatch):
    """New Unicode tables can change ids, so a cache made with others must not be used."""
    tokenizer = small()
    text, before = tokenizer.to_json(), tokenizer.fingerprint
    monkeypatch.setattr(regex, "__version__", "1.0")
    assert small().fingerprint != before
    with pytest.warns(UserWarning, match=r"runs with 1\.0"):
        tokenizers.from_json(text)


def test_saving_leaves_no_temporary_file_and_replaces_the_whole(tokenizer, tmp_path):
    path = tmp_path / "t.json"
    path.write_text("old" * 100_000)
    tokenizer.save(path)
    tokenizers.load(path)
    assert os.listdir(tmp_path) == ["t.json"]


def test_tokenizers_are_not_pickled():
    with pytest.raises(TypeError, match="to_json"):
        pickle.dumps(small())


def changed(**changes) -> str:
    state = json.loads(small().to_json())
    for key, value in changes.items():
        if value is None:
            del state[key]
        else:
            state[key] = value(state[key]) if callable(value) else value
    return json.dumps(state)


def token(i: int, value: object):
    return lambda tokens: [*tokens[:i], value, *tokens[i + 1 :]]


MALFORMED = {
    "empty file": ("", "not JSON"),
    "truncated": (small().to_json()[:-40], "not JSON"),
    "trailing data": (small().to_json() + "{}", "not JSON"),
    "no JSON": ("<xml/>", "not JSON"),
    "a list": ("[1, 2]", "holds a list"),
    "nested deeply": ("[" * 100_000, "nested too deeply"),
    "NaN": (changed(version=1).replace('"version": 1', '"version": NaN'), "NaN"),
    "a number of 10,000 digits": ('{"version": ' + "9" * 10_000 + "}", "too many digits"),
    "a key twice": ('{"format": "lm-tokenizer", "format": "x"}', "'format' is there twice"),
    "another format": (changed(format="other"), "'other'"),
    "no format": (changed(format=None), "no tokenizer file"),
    "a later version": (changed(version=2), "version 2"),
    "true as version": (changed(version=True), "version True"),
    "an unknown name": (changed(name="os.system"), "'os.system'"),
    "no name": (changed(name=None), '"name" is missing'),
    "an unknown key": (changed(regex=None)[:-1] + ', "extra": 1}', "unknown key 'extra'"),
    "a missing key": (changed(merges=None), '"merges" is missing'),
    "tokens no list": (changed(tokens="abc"), "not a list"),
    "bad hex": (changed(tokens=token(7, "zz")), "token 7 is 'zz'"),
    "odd hex": (changed(tokens=token(7, "abc")), "token 7"),
    "a number as token": (changed(tokens=token(7, 12)), "token 7 is 12"),
    "a missing byte": (changed(tokens=token(7, "0808")), "byte 0x07"),
    "an empty token": (changed(tokens=token(7, "")), "token 7 is empty"),
    "special = ordinary token": (changed(specials={"<s>": 5}), "token 5 belongs to a special"),
    "a special id twice": (changed(specials={"<s>": 258, "<t>": 258}), "same id"),
    "a gap in the ids": (changed(specials={"<s>": 300}), "token 258 is empty"),
    "a negative special": (changed(specials={"<s>": -1}), "id -1"),
    "a huge special": (changed(specials={"<s>": 10**12}), "id 1000000000000"),
    "an empty special": (changed(specials={"": 258}), "not empty"),
    "a surrogate as special": (changed(specials={"\ud800": 258}), "U\\+D800"),
    "specials no object": (changed(specials=[1]), '"specials" is'),
    "merge of two ids": (changed(merges=[[104, 105]]), "merge 0 is"),
    "merge of strings": (changed(merges=[["h", "i", "x"]]), "merge 0 is"),
    "merge of an unknown id": (changed(merges=[[104, 9999, 256]]), "9999 is not an ordinary"),
    "merge of a special": (changed(merges=[[104, 258, 256]]), "258 is not an ordinary"),
    "merge before its part": (changed(merges=[SMALL[1], SMALL[0]]), "no earlier merge makes 256"),
    "merge that does not join": (changed(merges=[[104, 104, 256]]), "do not join"),
    "merge twice": (changed(merges=[SMALL[0], SMALL[0]]), "merged before"),
    "pattern that does not compile": (changed(pattern="("), "does not compile"),
    "pattern that runs away": (changed(pattern=r"(x|xx|xxx)+y|[\s\S]"), "took over"),
    "pattern that loses text": (changed(pattern=r"\w+"), "leaves out"),
    "pattern no string": (changed(pattern=1), '"pattern" is 1'),
    "unknown priority": (changed(priority="random"), "priority='random'"),
    "chars not sorted": (
        '{"format":"lm-tokenizer","version":1,"name":"char","chars":"ba","specials":{}}',
        "sorted",
    ),
    "char specials not last": (
        '{"format":"lm-tokenizer","version":1,"name":"char","chars":"ab","specials":{"s":0}}',
        "ids 2..2",
    ),
    "byte with tokens": (
        '{"format":"lm-tokenizer","version":1,"name":"byte","tokens":[],"specials":{}}',
        "unknown key 'tokens'",
    ),
}


@timed
@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_file_is_refused_in_one_line_that_says_why(kind, tmp_path):
    text, reason = MALFORMED[kind]
    path = tmp_path / "t.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    start = time.process_time()
    with pytest.raises(tokenizers.TokenizerFormatError, match=reason) as caught:
        tokenizers.load(path)
    assert time.process_time() - start < 1
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < len(str(path)) + 300


def test_files_that_are_no_text_or_too_large_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "t.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(tokenizers.TokenizerFormatError, match="not UTF-8 at byte 0"):
        tokenizers.load(path)
    with open(path, "wb") as file:
        file.truncate(2 << 30)  # claims 2 GB and holds nothing
    with pytest.raises(tokenizers.TokenizerFormatError, match="2,147,483,648 bytes"):
        tokenizers.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        tokenizers.load(tmp_path / "none.json")


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_no_damage_to_a_file_escapes_as_another_exception(data):
    text = small().to_json()
    at = data.draw(st.integers(0, len(text) - 1))
    n = data.draw(st.integers(0, 30))
    damaged = text[:at] + data.draw(st.text(max_size=5)) + text[at + n :]
    with warnings.catch_warnings(), contextlib.suppress(tokenizers.TokenizerFormatError):
        warnings.simplefilter("ignore")
        files.from_json(damaged)
