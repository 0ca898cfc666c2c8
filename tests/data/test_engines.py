"""gigatoken packs the ids that our own tokenizer gives, or is refused."""

import argparse
import inspect
import logging
import random
import sys
import unicodedata

import numpy as np
import pytest

from lm import tokenizers
from lm.data import engines, pipeline, token_files
from lm.system.errors import ConfigError
from lm.tokenizers import BPETokenizer

SIGNS = (
    "a'sStTlLvVeErRdDmM \u017f\n\r\t\v\x85\xa0\u2028\u3000\x1c\u200b0\u00b2\u0663"
    "!?.-<|endoftext|>\u00e9\u4e2d"
)


class Shifted:
    """A stand-in for the library whose ids are wrong from the fourth of each text on."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def encode(self, data):
        ids = self.tokenizer.encode_to_numpy(data.decode())
        ids[3:] += 1
        return ids


@pytest.fixture(scope="module")
def library_text():
    return [inspect.getsource(argparse)[:60_000], inspect.getsource(inspect)[:40_000]]


@pytest.fixture(scope="module", params=["gpt2", "gpt4"])
def tokenizer(request, library_text):
    return tokenizers.train("bpe", library_text, vocab_size=700, pattern=request.param)


def encoded(encoder, documents):
    """The parts of all documents, and the document that each belongs to."""
    parts = list(encoder.encode_parts(documents, "t.txt"))
    return [(ids.tolist(), is_last) for ids, is_last in parts]


def own(tokenizer, documents):
    return [(ids.tolist(), is_last) for ids, is_last in tokenizer.encode_parts(documents)]


def without_library(monkeypatch):
    for name in ("gigatoken", "gigatoken.gigatoken_rs"):
        monkeypatch.setitem(sys.modules, name, None)


def odd_texts(seed):
    """Texts of signs at which split patterns decide, of any characters, and of the two mixed."""
    rng = random.Random(seed)
    drawn = (chr(rng.choice((rng.randrange(0x3000), rng.randrange(0x110000)))) for _ in range(9000))
    known = [c for c in drawn if unicodedata.category(c) not in ("Cs",)]
    texts = ["", "<|endoftext|>", "a" * 3000, " " * 3000, "\u0558's \U0003f78d's"]
    for n in range(300):
        kinds = rng.choice((SIGNS, known, SIGNS + "".join(rng.sample(known, 30))))
        texts.append("".join(rng.choice(kinds) for _ in range(n % 90)))
    return texts


def test_gigatoken_gives_the_ids_of_the_tokenizer(tokenizer, library_text, monkeypatch):
    pytest.importorskip("gigatoken")
    encoder = engines.Gigatoken(tokenizer)
    monkeypatch.setattr(engines, "COMPARED", 0)  # so that nothing but this test compares
    documents = [*odd_texts(0), *library_text]
    assert encoded(encoder, documents) == own(tokenizer, documents)


def test_gigatoken_takes_any_numbering_and_no_special_out_of_text(tokenizer, library_text):
    pytest.importorskip("gigatoken")
    new_id = {old: 99 + 3 * (old * 7 % 699) for old in range(699)}
    vocab = {new: tokenizer.token_bytes(old) for old, new in new_id.items()}
    merges = [(tokenizer.token_bytes(a), tokenizer.token_bytes(b)) for a, b, _ in tokenizer.merges]
    specials = {"<|endoftext|>": 98, "zebra": 97}
    other = BPETokenizer.of_vocab(vocab, merges, tokenizer.pattern, specials)
    documents = ["a zebra<|endoftext|>", *library_text]
    assert encoded(engines.Gigatoken(other), documents) == own(other, documents)


def test_memory_of_gigatoken_is_given_back_and_ids_stay(tokenizer, library_text, monkeypatch):
    pytest.importorskip("gigatoken")
    encoder = engines.Gigatoken(tokenizer)
    first = encoder._encoder
    monkeypatch.setattr(engines, "RENEWED", 1)
    documents = [text * 4 for text in library_text]
    assert encoded(encoder, documents) == own(tokenizer, documents)
    assert encoder._encoder is not first


def test_another_engine_finds_the_same_token_file(cfg, tiny, monkeypatch, caplog):
    pytest.importorskip("gigatoken")
    monkeypatch.setattr(engines, "COMPARED", 0)  # auto takes it for a short text
    words = (*tiny, "tokenizer=bpe", "tokenizer.vocab_size=300")
    caplog.set_level(logging.INFO)
    first = pipeline.prepare(cfg(*words))
    assert "; engine gigatoken " in caplog.text
    caplog.clear()
    second = pipeline.prepare(cfg(*words, "tokenizer.engine=own"))
    assert second.folder == first.folder and "reused" in caplog.text
    expected = np.concatenate([ids for ids, _ in first.tokenizer.encode_parts(["x"])])
    assert first.tokens.dtype == token_files.id_dtype(first.tokenizer) == expected.dtype


@pytest.mark.parametrize("engine", ["auto", "gigatoken"])
def test_the_first_other_id_is_named_with_file_document_and_character(
    tokenizer, monkeypatch, engine
):
    monkeypatch.setattr(engines, "_load_hf_json", lambda: lambda state: Shifted(tokenizer))
    monkeypatch.setattr(engines.metadata, "version", lambda name: "0.10.0")
    encoder = engines.choose(engine, tokenizer, engines.COMPARED + 1)
    expected = (
        r"^t.txt: document 2, character 2: gigatoken 0.10.0 gives other ids than our own "
        r"tokenizer: give tokenizer.engine=own$"
    )
    with pytest.raises(ConfigError, match=expected):
        encoded(encoder, ["", "z\u00e9q zq"])


def test_gigatoken_that_is_not_there_is_named_with_its_command(tokenizer, monkeypatch):
    without_library(monkeypatch)
    assert engines.choose("auto", tokenizer, engines.COMPARED + 1) is None
    expected = "tokenizer.engine=gigatoken needs gigatoken: pip install gigatoken, or give"
    for ask in (
        lambda: engines.check("gigatoken"),
        lambda: engines.choose("gigatoken", tokenizer, 1),
    ):
        with pytest.raises(ConfigError, match=expected):
            ask()
    engines.check("auto")
    engines.check("own", tokenizer)


@pytest.mark.parametrize("kind", ["byte", "pattern", "special"])
def test_gigatoken_is_refused_for_a_tokenizer_that_it_does_not_know(kind, monkeypatch):
    monkeypatch.setattr(engines, "_load_hf_json", lambda: lambda state: Shifted(None))
    monkeypatch.setattr(engines.metadata, "version", lambda name: "0.10.0")
    other = {
        "byte": lambda: tokenizers.train("byte", ["x"]),
        "pattern": lambda: BPETokenizer.of_merges([], pattern=r"\s+|\S+"),
        "special": lambda: BPETokenizer.of_merges([], "gpt4", ("a",)),  # as the byte is written
    }[kind]()
    with pytest.raises(ConfigError, match=r"^tokenizer\.engine=gigatoken .*give tokenizer\.engine"):
        engines.check("gigatoken", other)
    assert engines.choose("auto", other, engines.COMPARED + 1) is None


def test_auto_leaves_a_short_text_to_the_tokenizer(tokenizer, monkeypatch):
    """Loading the library takes longer than a text that is compared whole."""
    monkeypatch.setattr(engines, "Gigatoken", None)
    assert engines.choose("auto", tokenizer, engines.COMPARED) is None
    assert engines.choose("own", tokenizer, 1 << 40) is None


def test_a_lone_surrogate_is_named_as_by_the_tokenizer(tokenizer):
    pytest.importorskip("gigatoken")
    documents = ["ab", "c" * 300_000 + "\ud800"]
    with pytest.raises(ValueError) as expected:
        own(tokenizer, documents)
    with pytest.raises(ValueError) as found:
        encoded(engines.Gigatoken(tokenizer), documents)
    assert str(found.value) == str(expected.value)
