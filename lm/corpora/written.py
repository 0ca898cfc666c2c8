"""The text of a corpus in files: train.jsonl and val.jsonl, a JSON string a document.

parts = write(folder, corpus)       # {"": PartRecord}, or a record for each part of a mix
for text in read(folder, "train"): ...
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from lm.corpora import base, near_duplicates
from lm.corpora.mixed import Mixed, naming
from lm.system import foreign
from lm.system.errors import no_code_for
from lm.system.schemas import PartRecord, Repeats, Splits, TextCounts

SPLITS = ("train", "val")
PIECE = 1 << 20  # characters of a document that are written at a time


def source_of(corpus: base.Corpus) -> dict[str, Any]:
    """All that decides the text, in JSON values; the weights of a mix do not."""
    cfg = corpus.cfg
    if isinstance(corpus, Mixed):
        parts = []
        for name, part in corpus.parts.items():
            with naming(name):
                parts.append([name, source_of(part)])
        return {"corpus": cfg.name, "parts": parts}
    source = {"corpus": cfg.name, "val_fraction": cfg.val_fraction, **corpus.source()}
    if cfg.near_duplicates != "keep":  # a text where they are kept is named as it always was
        source["near_duplicates"] = cfg.near_duplicates
        source["near_duplicates_rules"] = near_duplicates.RULES
    return source


def write(folder: Path, corpus: base.Corpus) -> dict[str, PartRecord]:
    """Write the documents of each split to its file, those of a mix part by part; a corpus that is
    none is its own only part, named "".

    A document of a mix that repeats one of an earlier part is a near-duplicate, too.
    """
    seen = near_duplicates.Seen() if isinstance(corpus, Mixed) else None
    parts = corpus.parts if isinstance(corpus, Mixed) else {"": corpus}
    found = {}
    with (
        open(documents_file(folder, "train"), "w", encoding="utf-8") as train,
        open(documents_file(folder, "val"), "w", encoding="utf-8") as val,
    ):
        sinks = {"train": train, "val": val}
        for name, part in parts.items():
            with naming(name):
                found[name] = _write_part(sinks, part, name or corpus.cfg.name, seen)
    return found


def _write_part(
    sinks: Mapping[str, TextIO], corpus: base.Corpus, name: str, seen: near_duplicates.Seen | None
) -> PartRecord:
    """Write the documents of one corpus to the open file of their split."""
    cfg = corpus.cfg
    documents = (text for text in corpus.documents() if text)
    root_of: dict[int, int] = {}
    repeats = None
    if cfg.near_duplicates == "drop":
        repeats = Repeats("drop", 0)
        documents = near_duplicates.without(documents, repeats, seen)
    elif cfg.near_duplicates == "together":
        root_of = near_duplicates.groups(documents)
        repeats = Repeats("together", len(root_of))
        documents = (text for text in corpus.documents() if text)
    elif cfg.near_duplicates != "keep":
        raise no_code_for("corpus.near_duplicates", cfg.near_duplicates)
    elif seen:
        documents = near_duplicates.remembered(documents, seen)
    try:
        split_by, parts = base.split(documents, cfg.val_fraction, name, root_of, corpus.has_tails())
    except base.NoTextError:
        if repeats and repeats.mode == "drop" and repeats.n_documents:
            raise ValueError(
                f"nothing is left of corpus {name}, as all of it repeats earlier parts: leave it "
                "out, or give corpus.near_duplicates=keep"
            ) from None
        raise
    counts = {split: TextCounts(0, 0) for split in SPLITS}
    for split, text in parts:
        counts[split].n_documents += 1
        counts[split].n_bytes += _write_line(sinks[split], text)
    return PartRecord(split_by, Splits(**counts), repeats)


def _write_line(sink: TextIO, text: str) -> int:
    """Write a text as a line of JSON, in pieces, as it may be large; return its bytes in UTF-8."""
    n_bytes = 0
    sink.write('"')
    for at in range(0, len(text), PIECE):
        piece = text[at : at + PIECE]
        sink.write(json.dumps(piece, ensure_ascii=False)[1:-1])
        n_bytes += len(piece.encode())
    sink.write('"\n')
    return n_bytes


def as_one(parts: dict[str, PartRecord]) -> PartRecord:
    """The sums over the parts of a mix."""
    repeats = None
    totals = {split: TextCounts(0, 0) for split in SPLITS}
    for part in parts.values():
        for split, total in totals.items():
            total.n_documents += getattr(part.splits, split).n_documents
            total.n_bytes += getattr(part.splits, split).n_bytes
        if part.near_duplicates:
            repeats = repeats or Repeats("drop", 0)
            repeats.n_documents += part.near_duplicates.n_documents
            repeats.n_bytes += part.near_duplicates.n_bytes
    return PartRecord("part", Splits(**totals), repeats)


def read(corpus: Path, split: str) -> Iterator[str]:
    """The documents of a prepared corpus's split."""
    with foreign.open_plain(documents_file(corpus, split)) as file:
        for line in file:
            # Each is as large as the text: only two of them are there at a time.
            encoded = line.decode()
            line = b""
            text = json.loads(encoded)
            encoded = ""
            yield text


def beginnings(corpus: Path, split: str, n_chars: int) -> Iterator[str]:
    """The same documents, of each the first n_chars characters, in memory that depends on no
    document's length."""
    longest = 6 * n_chars + 2  # bytes: \\u0000 is a character
    with foreign.open_plain(documents_file(corpus, split)) as file:
        while line := file.readline(longest):
            yield _first_string(line)[:n_chars]
            while line and not line.endswith(b"\n"):  # the rest of a long document
                line = file.readline(PIECE)


def _first_string(line: bytes) -> str:
    """The text of a line of JSON, or of the beginning of one, which may end within a character."""
    if line.endswith(b"\n"):
        return json.loads(line)
    text = line.decode(errors="ignore")
    for n_left in range(len(text), 0, -1):
        try:
            return json.loads(f'{text[:n_left]}"')
        except ValueError:  # an escape that is cut in two
            continue
    return ""


def documents_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.jsonl"
