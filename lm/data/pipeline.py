"""Corpus -> tokenizer -> packed tokens: each stage is built if it is missing, and reused if not.

    prepared = pipeline.prepare(cfg)
    prepared.tokenizer, prepared.train, prepared.val

A stage's folder is named by the fingerprint of all that decides its content, so that any change
upstream gives another folder, and nothing stale is ever read.
"""

import contextlib
import dataclasses
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import regex
from rich.progress import Progress

from lm import tokenizers
from lm.config import BPEConfig, Config, CorpusConfig, HFTokenizerConfig, TokenizerConfig
from lm.corpora import base, overlap
from lm.corpora.mixed import naming
from lm.corpora.shards import Shards as SourceInShards
from lm.corpora.written import SPLITS, as_one, documents_file, read, source_of, write
from lm.data import engines, token_files
from lm.data.shards import Shards
from lm.system import failpoint, files, store
from lm.system.schemas import (
    Copied,
    CorpusRecord,
    PartRecord,
    Splits,
    TokenCounts,
    TokensRecord,
)
from lm.tokenizers import BPETokenizer, Tokenizer, formats

log = logging.getLogger(__name__)
OVERLAP = "overlap.json"
MANY_TOKENS = 100_000_000  # whose comparison takes more than a moment
MIN_MERGED = 4096  # merges are learned up to this vocabulary at least, so that a sweep trains once


@dataclass(repr=False)
class Prepared:
    """What a model is trained on: the tokenizer and both splits as ids, with their records."""

    tokenizer: Tokenizer
    train: np.ndarray  # (n,) uint16 or uint32, memory-mapped
    val: np.ndarray
    corpus: CorpusRecord
    tokens: TokensRecord
    folder: Path  # of the token files
    copied: Copied | None  # how much of val stands in train; None: val is too short to say
    shards: Shards | None = None  # the training text behind `train`, where there is more

    def __repr__(self) -> str:
        sizes = f"{len(self.train):,} ids to train on, {len(self.val):,} to validate"
        return f"<Prepared {sizes}, {self.tokenizer.vocab_size:,} in the vocabulary>"

    def parts(self, split: str) -> dict[str, np.ndarray]:
        """The ids of each part of a mix in a split; empty for one corpus."""
        ids = getattr(self, split)
        found = {}
        begin = 0
        for name, counts in self.tokens.parts.items():
            end = begin + getattr(counts, split).n_tokens
            found[name] = ids[begin:end]
            begin = end
        return found

    @property
    def facts(self) -> dict[str, float]:
        """What is known of the text beforehand, such as the grammar's floor_bpb."""
        return self.corpus.facts


def prepare(cfg: Config) -> Prepared:
    """The data of a run; each stage comes from the cache if it is there and intact."""
    corpus = prepare_corpus(cfg.corpus)
    tokenizer = prepare_tokenizer(cfg.tokenizer, corpus)
    prepared = pack(corpus, tokenizer, cfg.tokenizer.engine)
    text = base.build(cfg.corpus)
    if isinstance(text, SourceInShards):
        prepared.shards = _shards(text, corpus, tokenizer, cfg.tokenizer.engine)
        if cfg.tokenizer.name == "char" and len(prepared.shards):
            log.warning(
                "note: tokenizer=char knows the characters of the first part alone, and a shard "
                "with another one ends the run: tokenizer=byte and tokenizer=bpe read any text"
            )
    return prepared


def _shards(text: SourceInShards, corpus: Path, tokenizer: Tokenizer, engine: str) -> Shards:
    """What follows the first part of a text, with a line that says how much it is."""
    shards = Shards(text, corpus, tokenizer, engine)
    n_packed = sum(map(shards.is_packed, range(len(shards))))
    behind = f"{(text.n_bytes - text.n_first_bytes) / 1e6:,.0f} MB of text behind that"
    state = f"{len(shards):,} shards, of which {n_packed:,} are packed"
    log.info(f"{'shards':<10} {'text':<12} {behind}, in {state}")
    return shards


# ------------------------------------------------------------------------------------- corpus


def prepare_corpus(cfg: CorpusConfig) -> Path:
    """The folder with train.jsonl and val.jsonl (a JSON string a document) and corpus.json.

    Raises ValueError or FileNotFoundError if there is no text, or none that can be read.
    """
    corpus = base.build(cfg)
    source = source_of(corpus)
    folder = files.cache_dir() / f"corpora-{files.fingerprint(source)}"

    def make(tmp: Path) -> None:
        parts = write(tmp, corpus)
        sha256 = Splits(*(files.sha256(documents_file(tmp, split)) for split in SPLITS))
        whole = parts.pop("") if "" in parts else as_one(parts)
        record = CorpusRecord(
            source,
            whole.split_by,
            whole.splits,
            sha256,
            corpus.facts(),
            whole.near_duplicates,
            parts,
        )
        (tmp / "corpus.json").write_text(files.to_json(record), encoding="utf-8")

    seconds = store.build_once(folder, make, corpus_record)
    record = corpus_record(folder)
    n_documents = record.splits.train.n_documents + record.splits.val.n_documents
    size = f"{_n_bytes(record) / 1e6:.1f} MB"
    detail = f"in {n_documents:,} documents"
    if record.split_by == "position":  # one of the documents may be cut in two: no number of them
        detail = f"of which the last {cfg.val_fraction:.0%} are to validate"
    elif record.split_by == "tails":  # each of them is on both sides
        n_documents = max(record.splits.train.n_documents, record.splits.val.n_documents)
        detail = f"in {n_documents} documents, of each the last {cfg.val_fraction:.0%} to validate"
    if record.parts:
        sizes = (f"{name} {_n_bytes(part) / 1e6:.1f} MB" for name, part in record.parts.items())
        detail = f"in {len(record.parts)} parts: {', '.join(sizes)}"
    detail += _repeats_in_words(record)
    _log_stage("corpus", cfg.name, seconds, f"{size} {detail}")
    return folder


def _n_bytes(record: CorpusRecord | PartRecord) -> int:
    return record.splits.train.n_bytes + record.splits.val.n_bytes


def _repeats_in_words(record: CorpusRecord) -> str:
    """What was done with near-duplicates, for the line about the corpus."""
    repeats = record.near_duplicates
    if not repeats or not repeats.n_documents:
        return ""
    if repeats.mode == "together":
        return f"; {repeats.n_documents:,} near-duplicates on the side of the first of them"
    share = repeats.n_bytes / (repeats.n_bytes + _n_bytes(record))
    return f"; left out {repeats.n_documents:,} near-duplicates, {share:.1%} of the bytes"


def corpus_record(folder: Path) -> CorpusRecord:
    """What is in the folder of a prepared corpus; raises DamagedError."""
    return files.read_record(folder / "corpus.json", CorpusRecord)


# ---------------------------------------------------------------------------------- tokenizer


def prepare_tokenizer(cfg: TokenizerConfig, corpus: Path) -> Tokenizer:
    """The tokenizer that `cfg` describes, trained on the corpus's training split.

    char takes its alphabet from both splits: a validation text could not be encoded otherwise.
    """
    if isinstance(cfg, HFTokenizerConfig):
        return _existing_tokenizer(Path(cfg.path))
    settings = dataclasses.asdict(cfg)
    del settings["name"], settings["engine"]
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


def pack(corpus: Path, tokenizer: Tokenizer, engine: str = "auto") -> Prepared:
    """The prepared corpus as ids of the tokenizer, made by an engine of `engines.choose`.

    Raises ValueError if the validation split is empty, or the engine cannot be used.
    """
    about = corpus_record(corpus)
    sha256 = msgspec.structs.asdict(about.sha256)
    text: object = sha256
    if about.parts:  # the same documents may be divided in other ways
        n_documents = {}
        for name, part in about.parts.items():
            splits = part.splits
            n_documents[name] = [splits.train.n_documents, splits.val.n_documents, part.split_by]
        text = [sha256, list(n_documents.items())]
    key = [text, about.split_by, tokenizer.fingerprint]
    folder = files.cache_dir() / f"tokens-{files.fingerprint(key)}"
    made_by = ""

    def make(tmp: Path) -> None:
        nonlocal made_by
        encoder = engines.choose(engine, tokenizer, _n_bytes(about))
        made_by = f"; engine {encoder.name if encoder else 'own'}"
        token_files.write(tmp, corpus, about, files.fingerprint(text), tokenizer, encoder)

    seconds = store.build_once(folder, make, lambda f: token_files.check(f, tokenizer))
    tokens = files.read_record(folder / token_files.RECORD, TokensRecord)
    train = tokens.splits.train
    val = tokens.splits.val
    per_token = (train.n_bytes + val.n_bytes) / max(1, train.n_tokens + val.n_tokens)
    sizes = f"{train.n_tokens:,} to train on, {val.n_tokens:,} to validate"
    detail = f"{sizes}, {per_token:.2f} bytes each{made_by}"
    _log_stage("tokens", tokens.dtype, seconds, detail)
    train_ids = token_files.load(folder, "train")
    val_ids = token_files.load(folder, "val")
    for name, part in (tokens.parts or {"": tokens.splits}).items():
        if part.val.n_tokens < 2:
            with naming(name):
                raise base.TooShortError(
                    f"the validation split is too short ({part.val.n_tokens} tokens): give more "
                    f"text, or raise corpus.val_fraction={_val_fraction(about, name)}"
                )
    copied = _measure_copied(folder, train_ids, val_ids, val)
    return Prepared(tokenizer, train_ids, val_ids, about, tokens, folder, copied)


def _val_fraction(about: CorpusRecord, part: str) -> float:
    source = dict(about.source["parts"])[part] if part else about.source
    return source["val_fraction"]


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
        if len(train) > MANY_TOKENS:
            what = f"how much of val stands in {len(train):,} training tokens is looked up"
            log.info(f"{'overlap':<10} {'val in train':<12} {what}")
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
