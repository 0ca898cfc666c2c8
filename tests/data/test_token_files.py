"""Packing loses nothing, and a damaged file of tokens is refused."""

import json
import tracemalloc

import numpy as np
import pytest

from lm import tokenizers
from lm.data import token_files
from lm.system.schemas import Splits, TokenCounts
from lm.tokenizers import text


@pytest.fixture
def tokenizer():
    return tokenizers.train("byte", ["x"])


def packed(tmp_path, documents, tokenizer, ends):
    counts = token_files.pack(tmp_path, "train", documents, tokenizer, ends)
    token_files.write_record(tmp_path, tokenizer, "corpus", Splits(counts, counts))
    return token_files.load(tmp_path, "train"), counts


def test_whole_documents_have_an_end_token_on_both_sides(tmp_path, tokenizer):
    ids, counts = packed(tmp_path, ["ab", "c"], tokenizer, ends=True)
    end = tokenizer.eot_id
    assert ids.tolist() == [end, 97, 98, end, 99, end]
    assert counts == TokenCounts(6, 3, 2)


def test_parts_of_one_text_have_an_end_token_between_them_alone(tmp_path, tokenizer):
    ids, _ = packed(tmp_path, ["ab", "c"], tokenizer, ends=False)
    assert ids.tolist() == [97, 98, tokenizer.eot_id, 99]


def test_chunks_join_without_a_seam(tmp_path, tokenizer, monkeypatch):
    documents = [chr(97 + i % 26) * (i % 9) for i in range(200)]
    whole, _ = packed(tmp_path, documents, tokenizer, ends=True)
    expected = whole.tolist()
    monkeypatch.setattr(token_files, "CHUNK", 7)
    assert packed(tmp_path, documents, tokenizer, ends=True)[0].tolist() == expected


@pytest.mark.parametrize("ends", [True, False])
def test_a_long_document_comes_in_parts_and_is_one(tmp_path, tokenizer, ends):
    documents = ["ab", "cd e" * text.BLOCK_LEN, "f"]
    ids, counts = packed(tmp_path, documents, tokenizer, ends)
    eot = tokenizer.eot_id
    expected = [eot] * ends
    for document in documents:
        expected += [*document.encode(), eot]
    assert ids.tolist() == (expected if ends else expected[:-1])
    assert counts.n_documents == 3 and counts.n_bytes == sum(map(len, documents))


def test_a_text_of_one_line_is_packed_in_less_memory_than_it_has(tmp_path, tokenizer, monkeypatch):
    """Packing took eight bytes of memory for each token of the longest document at once."""
    size = 8 << 20
    line = "the cat sat on " * (size // 15)
    monkeypatch.setattr(token_files, "CHUNK", 1 << 16)
    text.keep_pages()
    tracemalloc.start()
    counts = token_files.pack(tmp_path, "train", [line], tokenizer, ends=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts == TokenCounts(len(line), len(line), 1)
    assert peak < size


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    class Wide:
        vocab_size, eot_id, fingerprint = 1 << 17, 100_000, "f"

        def token_lengths(self):
            return np.ones(self.vocab_size, dtype=np.int64)

        def encode_parts(self, documents):
            return ((np.array([70_000, 3]), True) for _ in documents)

    ids, _ = packed(tmp_path, ["x"], Wide(), ends=True)
    assert ids.dtype.itemsize == 4
    assert ids.tolist() == [100_000, 70_000, 3, 100_000]


def test_a_cut_file_is_refused(tmp_path, tokenizer):
    packed(tmp_path, ["abcdef"], tokenizer, ends=True)
    path = tmp_path / "train.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="bytes, not 8 ids"):
        token_files.load(tmp_path, "train")


def test_a_split_that_is_said_to_be_empty_and_is_not_is_damaged(tmp_path, tokenizer):
    """It was taken for a text without validation split; found by fuzzing."""
    packed(tmp_path, ["abcdef"], tokenizer, ends=True)
    record = json.loads((tmp_path / token_files.RECORD).read_text())
    record["splits"]["train"]["n_tokens"] = 0
    (tmp_path / token_files.RECORD).write_text(json.dumps(record))
    with pytest.raises(ValueError, match="bytes, not 0 ids"):
        token_files.load(tmp_path, "train")
