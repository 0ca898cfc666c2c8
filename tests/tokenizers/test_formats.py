"""Files of tiktoken, GPT-2 and Hugging Face: ids are the same after each trip, in both
directions.
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm import tokenizers
from lm.tokenizers import formats

TEXT = st.text() | st.text(st.sampled_from(" \n'aslvre19.!\u4e2d\U0001f600"))


@pytest.fixture(scope="module")
def trained(library_text):
    return tokenizers.train("bpe", library_text, vocab_size=800, pattern="gpt2")


@pytest.fixture(scope="module")
def shuffled(trained):
    """GPT-2's own files number the tokens in another order than the merges: so does this one, and
    with gaps.
    """
    order = sorted(range(trained.vocab_size - 1), key=lambda i: hash(i * 7919 % 801))
    new_id = {old: 100 + 3 * new for new, old in enumerate(order)}
    vocab = {new_id[i]: trained.token_bytes(i) for i in order}
    merges = [(trained.token_bytes(a), trained.token_bytes(b)) for a, b, _ in trained.merges]
    specials = {"<|endoftext|>": 99}
    return tokenizers.BPETokenizer.of_vocab(vocab, merges, "gpt2", specials), new_id


@settings(deadline=None, max_examples=100)
@given(text=TEXT)
def test_any_numbering_of_the_vocabulary_gives_the_same_tokens(trained, shuffled, text):
    other, new_id = shuffled
    assert other.encode_ordinary(text) == [new_id[i] for i in trained.encode_ordinary(text)]
    assert other.decode(other.encode_to_numpy(text)) == text


@pytest.fixture(scope="module")
def trips(trained, shuffled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    out = []
    formats.to_tiktoken(trained, folder / "ranks")
    out.append((trained, formats.from_tiktoken(folder / "ranks", "gpt2", trained.specials)))
    for k, tokenizer in enumerate((trained, shuffled[0])):
        formats.to_hf(tokenizer, folder / f"{k}.json")
        out.append((tokenizer, formats.from_hf(folder / f"{k}.json")))
        out.append((tokenizer, tokenizers.from_json(tokenizer.to_json())))
    out.append((trained, tokenizers.from_json(out[0][1].to_json())))
    return out


@settings(deadline=None, max_examples=100)
@given(text=TEXT)
def test_ids_are_the_same_after_each_trip(trips, text):
    for before, after in trips:
        assert after.encode_ordinary(text) == before.encode_ordinary(text)
        assert after.specials == before.specials
        assert after.vocab_size == before.vocab_size


def test_long_text_is_the_same_after_each_trip(trips, library_text):
    for before, after in trips:
        assert (
            after.encode_to_numpy(library_text[0]) == before.encode_to_numpy(library_text[0])
        ).all()


def test_tiktoken_reads_the_rank_file(trained, tmp_path, library_text, monkeypatch):
    load = pytest.importorskip("tiktoken.load")
    import tiktoken

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # or it keeps the file in /tmp, by its path
    formats.to_tiktoken(trained, tmp_path / "ranks")
    ranks = load.load_tiktoken_bpe(str(tmp_path / "ranks"))
    encoding = tiktoken.Encoding(
        "t",
        pat_str=trained.splitter.pattern,
        mergeable_ranks=ranks,
        special_tokens=trained.specials,
    )
    assert encoding.encode_ordinary(library_text[0]) == trained.encode_ordinary(library_text[0])
    assert encoding.n_vocab == trained.vocab_size


def test_hugging_face_reads_tokenizer_json_and_decodes(shuffled, tmp_path, library_text):
    hf = pytest.importorskip("tokenizers")
    tokenizer = shuffled[0]
    formats.to_hf(tokenizer, tmp_path / "t.json")
    other = hf.Tokenizer.from_file(str(tmp_path / "t.json"))
    text = library_text[0][:50_000] + "<|endoftext|>"
    ids = other.encode(text).ids
    assert ids == tokenizer.encode(text, "all")
    assert other.decode(ids, skip_special_tokens=False) == text


def test_files_written_by_hugging_face_are_read(library_text, tmp_path):
    hf = pytest.importorskip("tokenizers")
    theirs = hf.ByteLevelBPETokenizer()
    theirs.train_from_iterator(
        [library_text[0][:50_000]], vocab_size=500, special_tokens=["<|endoftext|>"]
    )
    theirs.save_model(str(tmp_path))
    theirs.save(str(tmp_path / "t.json"))
    text = library_text[0][50_000:80_000] + "\n\n \u4e2d\U0001f600 1234"
    ours = formats.from_gpt2(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert ours.encode(text) == theirs.encode(text).ids
    assert formats.from_hf(tmp_path / "t.json").encode(text) == ours.encode(text)
    assert ours.eot_id == theirs.token_to_id("<|endoftext|>")


def test_ids_with_gaps_are_those_of_tiktoken(trained, library_text):
    """As in cl100k_base, where unused ids lie before and between the special tokens."""
    tiktoken = pytest.importorskip("tiktoken")
    new_id = [70_000 + 3 * i for i in range(trained.vocab_size - 1)]  # beyond 16 bits
    vocab = {new_id[i]: trained.token_bytes(i) for i in range(len(new_id))}
    merges = [(new_id[a], new_id[b], new_id[c]) for a, b, c in trained.merges]
    specials = {"<|endoftext|>": 80_000, "<|x|>": 80_019}
    ours = tokenizers.BPETokenizer(vocab, merges, "gpt2", specials)
    theirs = tiktoken.Encoding(
        "t",
        pat_str=ours.splitter.pattern,
        mergeable_ranks={token: i for i, token in vocab.items()},
        special_tokens=specials,
    )
    text = library_text[0][:50_000] + "<|x|> \u4e2d<|endoftext|>"
    ids = ours.encode(text, "all")
    assert ids == theirs.encode(text, allowed_special="all")
    assert ours.decode(ids) == ours.decode(np.array(ids)) == theirs.decode(ids) == text
    assert ours.vocab_size == theirs.n_vocab == 80_020
    assert ours.encode_to_numpy(text).dtype == np.uint32
    assert tokenizers.from_json(ours.to_json()).encode(text, "all") == ids
    for n in (1, 1000):
        for gap in (0, 69_999, 70_001, 80_018, 80_020):
            with pytest.raises(ValueError, match=f"{gap} is not an id: .* with gaps"):
                ours.decode([*ids[:n], gap])
            with pytest.raises(ValueError, match=f"{gap} is not an id"):
                ours.decode(np.array([*ids[:n], gap]))


@pytest.mark.parametrize("bad", [-1, 1 << 24, 1.5, "1", None])
def test_an_id_beyond_bounds_is_named(bad):
    vocab = {i: bytes([i]) for i in range(256)}
    with pytest.raises(ValueError, match=rf"id {bad!r}.*integers 0\.\.16777215"):
        tokenizers.BPETokenizer(vocab, [], specials={"<s>": bad})
    with pytest.raises(ValueError, match=rf"id {bad!r}.*integers 0\.\.16777215"):
        tokenizers.BPETokenizer(vocab | {bad: b"ab"}, [])
    with pytest.raises(ValueError, match=r"id 256 of token b''.* a token has bytes"):
        tokenizers.BPETokenizer(vocab | {256: b""}, [])


def test_ignore_merges_is_read_where_it_changes_nothing(trained, tmp_path):
    formats.to_hf(trained, tmp_path / "t.json")
    state = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    state["model"]["ignore_merges"] = True
    (tmp_path / "t.json").write_text(json.dumps(state))
    assert formats.from_hf(tmp_path / "t.json").encode("the import") == trained.encode("the import")
    state["model"]["merges"].pop()  # now no merge makes the last token
    (tmp_path / "t.json").write_text(json.dumps(state))
    with pytest.raises(tokenizers.TokenizerFormatError, match="ignore_merges is true, and token"):
        formats.from_hf(tmp_path / "t.json")


def test_two_pairs_that_make_one_token_follow_tiktoken(tmp_path):
    """A rank file says tokens, not merges: abc is (a, bc) or (ab, c), whatever stands there."""
    tiktoken = pytest.importorskip("tiktoken")
    words = [b"bc", b"ab", b"abc", b"aa", b"aaa", b"aaaa", b"cab"]
    ranks = {bytes([b]): b for b in range(256)} | {w: 256 + k for k, w in enumerate(words)}
    import base64

    lines = [f"{base64.b64encode(t).decode()} {i}" for t, i in ranks.items()]
    (tmp_path / "ranks").write_text("\n".join(lines))
    ours = formats.from_tiktoken(tmp_path / "ranks", "gpt2")
    theirs = tiktoken.Encoding(
        "t", pat_str=ours.splitter.pattern, mergeable_ranks=ranks, special_tokens={}
    )
    import itertools

    for letters in itertools.product("abc", repeat=6):
        for text in ("".join(letters), "".join(letters) * 12):
            assert ours.encode_ordinary(text) == theirs.encode_ordinary(text)
            assert ours.encode_to_numpy(text).tolist() == theirs.encode_ordinary(text)


def test_a_token_that_merges_do_not_reach_is_refused(tmp_path):
    """tiktoken gives [256] for abc, where ours gave [97, 98, 99]."""
    import base64

    tokens = {b: bytes([b]) for b in range(256)} | {256: b"abc"}
    lines = [f"{base64.b64encode(t).decode()} {i}" for i, t in tokens.items()]
    (tmp_path / "ranks").write_text("\n".join(lines))
    with pytest.raises(tokenizers.TokenizerFormatError, match=r"ranks: tiktoken.*token 256 b'abc'"):
        formats.from_tiktoken(tmp_path / "ranks", "gpt2")
    with pytest.raises(ValueError, match="token 256 b'abc' is not what the merges make"):
        formats.to_tiktoken(tokenizers.BPETokenizer(tokens, []), tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"special": False}, "added token '<|x|>' is not special"),
        ({"lstrip": True}, "added token '<|x|>' has lstrip"),
        ({"rstrip": True}, "added token '<|x|>' has rstrip"),
        ({"single_word": True}, "added token '<|x|>' has single_word"),
        ({"normalized": True}, None),
    ],
)
def test_an_added_token_is_refused_where_it_is_not_found_like_ours(change, reason, tmp_path):
    hf = pytest.importorskip("tokenizers")
    ours = tokenizers.BPETokenizer.of_merges([(97, 98, 256)], specials=("<|x|>",))
    formats.to_hf(ours, tmp_path / "t.json")
    state = json.loads((tmp_path / "t.json").read_text())
    state["added_tokens"][0] |= change
    (tmp_path / "t.json").write_text(json.dumps(state))
    theirs = hf.Tokenizer.from_file(str(tmp_path / "t.json"))
    text = "ab <|x|> ab<|x|>ab"
    allowed = theirs.encode(text).ids
    theirs.encode_special_tokens = True  # specials are text
    found = allowed, theirs.encode(text).ids
    assert (found == (ours.encode(text, "all"), ours.encode_ordinary(text))) == (reason is None)
    if reason is None:
        assert formats.from_hf(tmp_path / "t.json").encode(text, "all") == allowed
    else:
        with pytest.raises(tokenizers.TokenizerFormatError) as refused:
            formats.from_hf(tmp_path / "t.json")
        assert reason in str(refused.value)


def test_what_a_format_cannot_say_is_an_error_not_a_loss(shuffled, tmp_path):
    with pytest.raises(ValueError, match="use to_hf"):
        formats.to_tiktoken(shuffled[0], tmp_path / "ranks")
    double = tokenizers.BPETokenizer.of_merges(
        [(97, 98, 256), (98, 99, 257), (256, 99, 258), (97, 257, 259)]
    )
    for write in (formats.to_tiktoken, formats.to_hf):
        with pytest.raises(ValueError, match="same bytes"):
            write(double, tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("YQ==", "line 1"),
        ("YQ== x", "line 1"),
        ("!!! 1", "line 1"),
        ("YQ== 0\nYg== 0", "rank 0 twice"),
        ("YQ== 0\nYQ== 1", "same bytes"),
        ("YQ== 0\nYg== 1", "byte 0x00"),
        ("YQ== 0\nYg== 16777216", "id 16777216 of token"),
        ("", "byte 0x00"),
    ],
)
def test_a_malformed_rank_file_is_refused(content, reason, tmp_path):
    (tmp_path / "ranks").write_text(content)
    with pytest.raises(tokenizers.TokenizerFormatError, match=reason):
        formats.from_tiktoken(tmp_path / "ranks", "gpt2")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("model", "type"), "Unigram", "'Unigram', not BPE"),
        (("model", "byte_fallback"), True, "byte_fallback"),
        (("model", "end_of_word_suffix"), "</w>", "no byte-level"),
        (("normalizer",), {"type": "NFC"}, "normalizer"),
        (("pre_tokenizer",), None, "pre_tokenizer"),
        (("pre_tokenizer",), {"type": "Whitespace"}, "ByteLevel"),
        (("model", "merges"), [["h"]], "merge 0"),
        (("model", "merges"), [["h", "\u4e2d"]], "stands for no byte"),
        (("model", "merges"), [["h", "qqq"]], "not in the vocabulary"),
        (("model", "vocab"), {"a": "b"}, "id 'b'"),
        (("added_tokens",), [{"content": 1, "id": 5}], '"content"'),
    ],
)
def test_a_tokenizer_json_we_cannot_follow_is_refused_by_name(
    trained, tmp_path, path, value, reason
):
    formats.to_hf(trained, tmp_path / "t.json")
    state = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (tmp_path / "t.json").write_text(json.dumps(state))
    with pytest.raises(tokenizers.TokenizerFormatError, match=reason):
        formats.from_hf(tmp_path / "t.json")
