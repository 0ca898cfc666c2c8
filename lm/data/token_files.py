"""Packed tokens on disk: the ids of each split, and a record that says what they mean.

token_files.write(folder, corpus, about, "9f2c...", tokenizer)     # both splits and the record
token_files.load(folder, "train")          # (n,) uint16 or uint32, memory-mapped
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from lm.corpora import written
from lm.data import engines
from lm.system import failpoint, files, foreign
from lm.system.errors import DamagedError
from lm.system.schemas import CorpusRecord, Splits, TokenCounts, TokensRecord
from lm.tokenizers import Tokenizer

RECORD = "tokens.json"
CHUNK = 1 << 22  # ids held in memory while packing or checking

EncodeParts = Callable[[Iterable[str]], Iterator[tuple[np.ndarray, bool]]]


def write(
    folder: Path,
    corpus: Path,
    about: CorpusRecord,
    text: str,
    tokenizer: Tokenizer,
    encoder: engines.Gigatoken | None = None,
) -> None:
    """Write the ids of a prepared corpus, those of a mix part by part, and their record.

    `text` is the fingerprint of the text in both splits. `encoder` stands in for the tokenizer.
    """
    counts: dict[str, dict[str, TokenCounts]] = {}
    totals = {split: TokenCounts(0, 0) for split in written.SPLITS}
    for split, total in totals.items():
        documents = written.read(corpus, split)
        for name, part in (about.parts or {"": about}).items():
            ends = part.split_by != "position"  # which is one text
            own = documents
            if name:
                own = itertools.islice(documents, getattr(part.splits, split).n_documents)
            encode_parts = None
            if encoder:
                source = str(written.documents_file(corpus, split))
                source += f", part {name}" if name else ""
                encode_parts = functools.partial(encoder.encode_parts, source=source)
            packed = pack(folder, split, own, tokenizer, ends, bool(name), encode_parts)
            counts.setdefault(name, {})[split] = packed
            total.n_tokens += packed.n_tokens
            total.n_bytes += packed.n_bytes
            total.n_documents += packed.n_documents
    parts = {name: Splits(**of_part) for name, of_part in counts.items() if name}
    write_record(folder, tokenizer, text, Splits(**totals), parts)


def pack(
    folder: Path,
    split: str,
    documents: Iterable[str],
    tokenizer: Tokenizer,
    ends: bool,
    append: bool = False,
    encode_parts: EncodeParts | None = None,
) -> TokenCounts:
    """Write the ids of all documents to folder/SPLIT.bin, or `append` them; return their counts.

    The end-of-document token stands between documents. With `ends` it also stands before the
    first and after the last, as the split then holds whole documents; a part cut out of a text
    has neither. `encode_parts` stands in for that of the tokenizer, with the same ids.
    """
    encode_parts = encode_parts or tokenizer.encode_parts
    dtype = id_dtype(tokenizer)
    eot = np.array([tokenizer.eot_id], dtype=dtype)
    token_bytes = tokenizer.token_lengths()  # (V,)
    counts = TokenCounts(0, 0)
    with open(folder / f"{split}.bin", "ab" if append else "wb") as file:

        def write(pending: list[np.ndarray]) -> None:
            ids = np.concatenate(pending) if pending else eot[:0]
            counts.n_tokens += len(ids)
            counts.n_bytes += int(token_bytes[ids].sum())
            # Not tofile, whose error does not say that the disk is full.
            file.write(ids.astype(ids.dtype.newbyteorder("<"), copy=False).data)

        pending = [eot] if ends else []
        n_pending = len(pending)
        is_first = True  # part of its document
        for ids, is_last in encode_parts(documents):
            if is_first and counts.n_documents and not ends:
                pending.append(eot)
            pending.append(ids.astype(dtype))
            is_first = is_last
            if is_last:
                counts.n_documents += 1
                if ends:
                    pending.append(eot)
            n_pending += len(ids) + 1
            if n_pending > CHUNK:
                write(pending)
                pending = []
                n_pending = 0
            failpoint.hit("cache.mid")
        write(pending)
    return counts


def id_dtype(tokenizer: Tokenizer) -> np.dtype:
    """The smallest type that holds every id: uint16 up to a vocabulary of 65,536, else uint32."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


def write_record(
    folder: Path,
    tokenizer: Tokenizer,
    corpus: str,
    splits: Splits[TokenCounts],
    parts: dict[str, Splits[TokenCounts]] | None = None,
) -> None:
    """Write what the token files mean: dtype, vocabulary, origin, counts, and those of parts."""
    dtype = str(id_dtype(tokenizer))
    record = TokensRecord(
        dtype, tokenizer.vocab_size, tokenizer.fingerprint, corpus, splits, parts or {}
    )
    (folder / RECORD).write_text(files.to_json(record), encoding="utf-8")


def load(folder: Path, split: str) -> np.ndarray:
    """The ids of a split, memory-mapped (n,), uint16 or uint32; DamagedError if it has others."""
    record = files.read_record(folder / RECORD, TokensRecord)
    path = folder / f"{split}.bin"
    n = getattr(record.splits, split).n_tokens
    if record.dtype not in ("uint16", "uint32") or n < 0:
        raise DamagedError(f"{path} holds {n} ids of {record.dtype[:20]!a}, says {RECORD}")
    dtype = np.dtype(record.dtype).newbyteorder("<")
    foreign.check(path)
    if path.stat().st_size != n * dtype.itemsize:
        raise DamagedError(f"{path} has {path.stat().st_size} bytes, not {n} ids")
    if n == 0:  # what cannot be mapped
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=(n,))


def check(folder: Path, tokenizer: Tokenizer) -> None:
    """Raise DamagedError unless these are tokens of this tokenizer, every id below vocab_size."""
    record = files.read_record(folder / RECORD, TokensRecord)
    if record.tokenizer != tokenizer.fingerprint:
        raise DamagedError(f"{folder} holds tokens of another tokenizer")
    if record.vocab_size != tokenizer.vocab_size:
        raise DamagedError(f"{folder} holds tokens of another vocab_size")
    for split in ("train", "val"):
        ids = load(folder, split)
        lengths = [getattr(part, split).n_tokens for part in record.parts.values()]
        if lengths and (min(lengths) < 0 or sum(lengths) != len(ids)):
            raise DamagedError(f"{folder / split}.bin has {len(ids)} ids, and its parts others")
        for start in range(0, len(ids), CHUNK):
            top = int(ids[start : start + CHUNK].max())
            if top >= tokenizer.vocab_size:
                raise DamagedError(
                    f"{folder / split}.bin holds the id {top}, and the vocabulary ends at "
                    f"{tokenizer.vocab_size - 1}"
                )
