"""Corpus -> tokenizer -> packed tokens: each stage is built if it is missing, and reused if not.

    prepared = pipeline.prepare(cfg)
    prepared.tokenizer, prepared.train, prepared.val

A stage's folder is named by the fingerprint of all that decides its content, so that any change
upstream gives another folder, and nothing stale is ever read.
"""

import contextlib
import dataclasses
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec
import numpy as np
import regex
from rich.progress import Progress

from lm import data, tokenizers
from lm.config import BPEConfig, Config, CorpusConfig, HFTokenizerConfig, TokenizerConfig
from lm.corpora import base, near_duplicates, overlap
from lm.system import failpoint, files, foreign, store
from lm.system.schemas import (
    Copied,
    CorpusRecord,
    Repeats,
    Splits,
    TextCounts,
    TokenCounts,
    TokensRecord,
)
from lm.tokenizers import BPETokenizer, Tokenizer, formats

log = logging.getLogger(__name__)
SPLITS = ("train", "val")
PIECE = 1 << 20  # characters of a document that are written at a time
OVERLAP = "overlap.json"
MIN_MERGED = 4096  # merges are learned up to this vocabulary at least, so that a sweep trains once


@dataclass
class Prepared:
    """What a model is trained on: the tokenizer and both splits as ids, with their records."""

    tokenizer: Tokenizer
    train: np.ndarray  # (n,) uint16 or uint32, memory-mapped
    val: np.ndarray
    corpus: CorpusRecord
    tokens: TokensRecord
    folder: Path  # of the token files
    copied: Copied | None  # how much of val stands in train; None: val is too short to say

    @property
    def facts(self) -> dict[str, float]:
        """What is known of the text beforehand, such as the grammar's floor_bpb."""
        return self.corpus.facts


def prepare(cfg: Config) -> Prepared:
    """The data of a run; each stage comes from the cache if it is there and intact."""
    corpus = prepare_corpus(cfg.corpus)
    tokenizer = prepare_tokenizer(cfg.tokenizer, corpus)
    return pack(corpus, tokenizer)


# ------------------------------------------------------------------------------------- corpus


def prepare_corpus(cfg: CorpusConfig) -> Path:
    """The folder with train.jsonl and val.jsonl (a JSON string a document) and corpus.json.

    Raises ValueError or FileNotFoundError if there is no text, or none that can be read.
    """
    corpus: base.Corpus = cfg.build()
    source = {"corpus": cfg.name, "val_fraction": cfg.val_fraction, **corpus.source()}
    if cfg.near_duplicates != "keep":  # a text where they are kept is named as it always was
        source["near_duplicates"] = cfg.near_duplicates
        source["near_duplicates_rules"] = near_duplicates.RULES
    folder = files.cache_dir() / f"corpora-{files.fingerprint(source)}"

    def make(tmp: Path) -> None:
        split_by, documents, repeats = _split(corpus)
        counts = _write_documents(tmp, documents)
        sha256 = Splits(*(files.sha256(_documents_file(tmp, split)) for split in SPLITS))
        record = CorpusRecord(source, split_by, counts, sha256, corpus.facts(), repeats)
        (tmp / "corpus.json").write_text(files.to_json(record), encoding="utf-8")

    seconds = store.build_once(folder, make, corpus_record)
    record = corpus_record(folder)
    train = record.splits.train
    val = record.splits.val
    size = f"{(train.n_bytes + val.n_bytes) / 1e6:.1f} MB"
    detail = f"in {train.n_documents + val.n_documents:,} documents"
    if record.split_by == "position":  # one of the documents may be cut in two: no number of them
        detail = f"of which the last {cfg.val_fraction:.0%} are to validate"
    detail += _repeats_in_words(record)
    _log_stage("corpus", cfg.name, seconds, f"{size} {detail}")
    return folder


def _repeats_in_words(record: CorpusRecord) -> str:
    """What was done with near-duplicates, for the line about the corpus."""
    repeats = record.near_duplicates
    if not repeats or not repeats.n_documents:
        return ""
    if repeats.mode == "together":
        return f"; {repeats.n_documents:,} near-duplicates on the side of the first of them"
    kept = record.splits.train.n_bytes + record.splits.val.n_bytes
    share = repeats.n_bytes / (repeats.n_bytes + kept)
    return f"; left out {repeats.n_documents:,} near-duplicates, {share:.1%} of the bytes"


def _split(corpus: base.Corpus) -> tuple[str, Iterator[tuple[str, str]], Repeats | None]:
    """What `base.split` gives for the corpus, and the count of its near-duplicates, which is whole
    once the documents are used up.
    """
    cfg = corpus.cfg
    documents = (text for text in corpus.documents() if text)
    root_of: dict[int, int] = {}
    repeats = None
    if cfg.near_duplicates == "drop":
        repeats = Repeats("drop", 0)
        documents = near_duplicates.without(documents, repeats)
    elif cfg.near_duplicates == "together":
        root_of = near_duplicates.groups(documents)
        repeats = Repeats("together", len(root_of))
        documents = (text for text in corpus.documents() if text)
    return *base.split(documents, cfg.val_fraction, cfg.name, root_of), repeats


def _write_documents(folder: Path, documents: Iterator[tuple[str, str]]) -> Splits[TextCounts]:
    """Write the documents of each split to its file."""
    counts = {split: TextCounts(0, 0) for split in SPLITS}
    with (
        open(_documents_file(folder, "train"), "w", encoding="utf-8") as train,
        open(_documents_file(folder, "val"), "w", encoding="utf-8") as val,
    ):
        sinks = {"train": train, "val": val}
        for split, text in documents:
            counts[split].n_documents += 1
            counts[split].n_bytes += _write_line(sinks[split], text)
    return Splits(**counts)


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


def read(corpus: Path, split: str) -> Iterator[str]:
    """The documents of a prepared corpus's split."""
    with foreign.open_plain(_documents_file(corpus, split)) as file:
        for line in file:
            text = json.loads(line)
            line = b""  # which may be as large as the text
            yield text


def corpus_record(folder: Path) -> CorpusRecord:
    """What is in the folder of a prepared corpus; raises DamagedError."""
    return files.read_record(folder / "corpus.json", CorpusRecord)


def _documents_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.jsonl"


# ---------------------------------------------------------------------------------- tokenizer


def prepare_tokenizer(cfg: TokenizerConfig, corpus: Path) -> Tokenizer:
    """The tokenizer that `cfg` describes, trained on the corpus's training split.

    char takes its alphabet from both splits: a validation text could not be encoded otherwise.
    """
    if isinstance(cfg, HFTokenizerConfig):
        return _existing_tokenizer(Path(cfg.path))
    settings = dataclasses.asdict(cfg)
    del settings["name"]
    if isinstance(cfg, BPEConfig):
        # A smaller vocabulary has the first merges of a larger one: one training serves several.
        next_power = 1 << (cfg.vocab_size - 1).bit_length()
        settings["vocab_size"] = max(MIN_MERGED, next_power)
    splits = SPLITS if cfg.name == "char" else ("train",)
    sha256 = corpus_record(corpus).sha256
    # Another version of regex knows other characters, so it may split, and count, differently.
    key = [cfg.name, settings, regex.__version__, [getattr(sha256, split) for split in splits]]
    folder = files.cache_dir() / f"tokenizers-{files.fingerprint(key)}"

    def make(tmp: Path) -> None:
        documents = (text for split in splits for text in read(corpus, split))
        trained = _train_tokenizer(cfg.name, documents, settings)
        failpoint.hit("cache.mid")
        trained.save(tmp / "tokenizer.json")

    seconds = store.build_once(folder, make, lambda f: tokenizers.load(f / "tokenizer.json"))
    tokenizer = tokenizers.load(folder / "tokenizer.json")
    detail = ""
    if isinstance(cfg, BPEConfig) and isinstance(tokenizer, BPETokenizer):
        if tokenizer.vocab_size > cfg.vocab_size:
            tokenizer = tokenizer.truncate(cfg.vocab_size)
        if tokenizer.vocab_size < cfg.vocab_size:
            detail = f"; the text has no more pairs, so not tokenizer.vocab_size={cfg.vocab_size:,}"
        elif tokenizer.vocab_size % 64:
            detail = ", no multiple of 64, which matrix units like best"
    _log_stage("tokenizer", cfg.name, seconds, f"{tokenizer.vocab_size:,} tokens{detail}")
    return tokenizer


def _train_tokenizer(name: str, documents: Iterator[str], settings: dict[str, Any]) -> Tokenizer:
    """Train a tokenizer, with a progress bar if a person is watching."""
    has_terminal = sys.stdout.isatty()
    with warnings.catch_warnings(), Progress(transient=True, disable=not has_terminal) as bar:
        warnings.simplefilter("ignore")  # about the vocabulary trained, which is not the requested
        task = bar.add_task("training the tokenizer", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return tokenizers.train(name, documents, progress=progress, **settings)


def _existing_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder: tokenizer.json, or GPT-2's vocab.json, merges.txt."""
    tokenizer = formats.from_hf_folder(folder)
    _log_stage("tokenizer", "hf", None, f"{tokenizer.vocab_size:,} tokens of {folder}")
    return tokenizer


# ------------------------------------------------------------------------------------- tokens


def pack(corpus: Path, tokenizer: Tokenizer) -> Prepared:
    """The prepared corpus as ids of the tokenizer. ValueError if the validation split is empty."""
    about = corpus_record(corpus)
    sha256 = msgspec.structs.asdict(about.sha256)
    key = [sha256, about.split_by, tokenizer.fingerprint]
    folder = files.cache_dir() / f"tokens-{files.fingerprint(key)}"

    def make(tmp: Path) -> None:
        ends = about.split_by == "document"
        counts = (data.pack(tmp, s, read(corpus, s), tokenizer, ends) for s in SPLITS)
        data.write_record(tmp, tokenizer, files.fingerprint(sha256), Splits(*counts))

    seconds = store.build_once(folder, make, lambda f: data.check(f, tokenizer))
    tokens = files.read_record(folder / data.RECORD, TokensRecord)
    train = tokens.splits.train
    val = tokens.splits.val
    per_token = (train.n_bytes + val.n_bytes) / max(1, train.n_tokens + val.n_tokens)
    sizes = f"{train.n_tokens:,} to train on, {val.n_tokens:,} to validate"
    _log_stage("tokens", tokens.dtype, seconds, f"{sizes}, {per_token:.2f} bytes each")
    train_ids = data.load(folder, "train")
    val_ids = data.load(folder, "val")
    if len(val_ids) < 2:
        raise ValueError(
            f"the validation split is too short ({len(val_ids)} tokens): give more text, or "
            f"raise corpus.val_fraction={about.source['val_fraction']}"
        )
    copied = _measure_copied(folder, train_ids, val_ids, val)
    return Prepared(tokenizer, train_ids, val_ids, about, tokens, folder, copied)


def _measure_copied(
    folder: Path, train: np.ndarray, val: np.ndarray, counts: TokenCounts
) -> Copied | None:
    """How much of the tokens `val` stands in `train`: measured once, then read from the cache."""
    span = overlap.span_length(counts.n_bytes / max(1, counts.n_tokens))
    if len(val) < span:
        return None
    key = [folder.name, span, overlap.RULES]
    cached = files.cache_dir() / f"overlap-{files.fingerprint(key)}"

    def make(tmp: Path) -> None:
        measured = Copied(overlap.share_copied(train, val, span), span)
        (tmp / OVERLAP).write_text(files.to_json(measured), encoding="utf-8")

    def read(stage: Path) -> Copied:
        return files.read_record(stage / OVERLAP, Copied)

    store.build_once(cached, make, read)
    copied = read(cached)
    if copied.share > overlap.NOTABLE:
        log.info(f"{'overlap':<10} {'val in train':<12} {overlap.in_words(copied, 'val')}")
    return copied


# ------------------------------------------------------------------------- a line for each stage


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Log no line about each stage: for looking at a run whose stages are there already."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _log_stage(stage: str, name: str, seconds: float | None, detail: str) -> None:
    origin = "reused" if seconds is None else f"built in {seconds:.1f} s"
    log.info(f"{stage:<10} {name:<12} {origin:<16} {detail}")
