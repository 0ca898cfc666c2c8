"""The text of a prepared corpus, in files: lm/corpora/written.py."""

import json
import tracemalloc

import pytest

from lm.corpora import base, written

TEXTS = ["", "plain", 'a "b" \\ c\n\t\x00' * 3, "\u00e9\u2014\U0001f600" * 9, "\\" * 40, "end"]


@pytest.mark.parametrize("n_chars", [1, 2, 3, 4, 7, 50])
def test_a_beginning_is_cut_within_no_character(n_chars, tmp_path):
    lines = [json.dumps(text, ensure_ascii=False) + "\n" for text in TEXTS]
    written.documents_file(tmp_path, "val").write_text("".join(lines), encoding="utf-8")
    assert list(written.beginnings(tmp_path, "val", n_chars)) == [t[:n_chars] for t in TEXTS]
    assert list(written.read(tmp_path, "val")) == TEXTS


def test_a_beginning_takes_no_more_memory_where_the_document_is_long(tmp_path):
    """The doctor read 400 MB in one line for the first five million characters."""
    path = written.documents_file(tmp_path, "train")
    path.write_text('"' + "\u2014 long" * 1_000_000 + '"\n', encoding="utf-8")
    tracemalloc.start()
    assert list(written.beginnings(tmp_path, "train", 3)) == ["\u2014 l"]
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_fault_behind_repeated_documents_is_told_as_it_is(cfg, tmp_path):
    """It was told as `nothing is left, as all of it repeats`."""
    path = tmp_path / "a.jsonl"
    line = json.dumps(" ".join(f"word{i}" for i in range(40)))
    path.write_text(f"{line}\n" * 1200 + "{oops\n")
    corpus = base.build(cfg("corpus=files", f"corpus.path={path}").corpus)
    with pytest.raises(ValueError, match="line 1201 is not JSON"):
        written.write(tmp_path, corpus)
