"""Corpus -> tokenizer -> packed tokens: each stage built if it is missing, found if it is not.

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
from typing import Any

import msgspec
import numpy as np
import regex
from rich.progress import Progress

from lm import data, tokenizers
from lm.config import Config, CorpusConfig, TokenizerConfig
from lm.corpora import base
from lm.system import failpoint, files, store
from lm.system.schemas import CorpusRecord, Splits, TextCounts, TokensRecord
from lm.tokenizers import formats

log = logging.getLogger(__name__)
SPLITS = ("train", "val")
TRAINED = 4096  # merges are learned up to this vocabulary at least, so that a sweep trains once


@dataclass
class Prepared:
    """What a model is trained on: the tokenizer and both splits as ids, with their record."""

    tokenizer: Any
    train: np.ndarray  # (n,) uint16 or uint32, memory-mapped
    val: np.ndarray
    corpus: CorpusRecord
    tokens: TokensRecord
    folder: Path  # of the token files

    @property
    def facts(self) -> dict[str, float]:
        """What is known of the text, such as the grammar's floor_bpb."""
        return self.corpus.facts


def prepare(cfg: Config) -> Prepared:
    """The data of a run, out of the cache where it is there."""
    corpus = prepare_corpus(cfg.corpus)
    tokenizer = prepare_tokenizer(cfg.tokenizer, corpus)
    return pack(corpus, tokenizer)


def prepare_corpus(cfg: CorpusConfig) -> Path:
    """The folder with train.jsonl and val.jsonl (a JSON string a document) and corpus.json."""
    corpus = cfg.build()
    source = {"corpus": cfg.name, "val_fraction": cfg.val_fraction, **corpus.source()}
    folder = files.cache_dir() / f"corpora-{files.fingerprint(source)}"

    def make(tmp: Path) -> None:
        kind, documents = base.split(corpus.documents(), cfg.val_fraction, cfg.name)
        counts = Splits(TextCounts(0, 0), TextCounts(0, 0))
        sinks = {s: open(tmp / f"{s}.jsonl", "w", encoding="utf-8") for s in SPLITS}  # noqa: SIM115
        try:
            for split, text in documents:
                sinks[split].write(json.dumps(text, ensure_ascii=False) + "\n")
                count = getattr(counts, split)
                count.n_documents += 1
                count.n_bytes += len(text.encode())
        finally:
            for file in sinks.values():
                file.close()
        sha256 = Splits(*(files.sha256(tmp / f"{split}.jsonl") for split in SPLITS))
        record = CorpusRecord(source, kind, counts, sha256, corpus.facts())
        (tmp / "corpus.json").write_text(files.to_json(record), encoding="utf-8")

    seconds = store.build_once(folder, make, corpus_record)
    about = corpus_record(folder)
    train, val = about.splits.train, about.splits.val
    n_bytes = train.n_bytes + val.n_bytes
    how = f"in {train.n_documents + val.n_documents:,} documents"
    if about.split_by == "position":  # then one of them may be cut in two
        how = f"of which the last {cfg.val_fraction:.0%} are to validate"
    _say("corpus", cfg.name, seconds, f"{n_bytes / 1e6:.1f} MB {how}")
    return folder


def corpus_record(folder: Path) -> CorpusRecord:
    """What is in the folder of a prepared corpus; raises DamagedError."""
    return files.read_record(folder / "corpus.json", CorpusRecord)


def prepare_tokenizer(cfg: TokenizerConfig, corpus: Path) -> Any:
    """The tokenizer that `cfg` describes, trained on the corpus's training split.

    char takes its alphabet from both splits: a validation text could not be encoded otherwise.
    """
    if cfg.name == "hf":
        return existing_tokenizer(Path(cfg.path))
    settings = {k: v for k, v in dataclasses.asdict(cfg).items() if k != "name"}
    if cfg.name == "bpe":  # its smaller vocabularies are the beginnings of a larger one's merges
        settings["vocab_size"] = max(TRAINED, 1 << (cfg.vocab_size - 1).bit_length())
    splits = SPLITS if cfg.name == "char" else SPLITS[:1]
    sha256 = corpus_record(corpus).sha256
    # Another version of regex knows other characters, so it may split, and count, differently.
    key = [cfg.name, settings, regex.__version__, [getattr(sha256, split) for split in splits]]
    folder = files.cache_dir() / f"tokenizers-{files.fingerprint(key)}"

    def make(tmp: Path) -> None:
        documents = (text for split in splits for text in read(corpus, split))
        terminal = sys.stdout.isatty()
        with warnings.catch_warnings(), Progress(transient=True, disable=not terminal) as bar:
            warnings.simplefilter("ignore")  # of the trained size, which nobody asked for
            task = bar.add_task("training the tokenizer", total=None)
            trained = tokenizers.train(
                cfg.name,
                documents,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                **settings,
            )
        failpoint.hit("cache.mid")
        trained.save(tmp / "tokenizer.json")

    seconds = store.build_once(folder, make, lambda f: tokenizers.load(f / "tokenizer.json"))
    tokenizer = tokenizers.load(folder / "tokenizer.json")
    if cfg.name == "bpe" and tokenizer.vocab_size > cfg.vocab_size:
        tokenizer = tokenizer.truncate(cfg.vocab_size)
    size = f"{tokenizer.vocab_size:,} tokens"
    if cfg.name == "bpe" and tokenizer.vocab_size < cfg.vocab_size:
        size += f"; the text has no more pairs, so not tokenizer.vocab_size={cfg.vocab_size:,}"
    elif cfg.name == "bpe" and tokenizer.vocab_size % 64:
        size += ", no multiple of 64, which matrix units like best"
    _say("tokenizer", cfg.name, seconds, size)
    return tokenizer


def existing_tokenizer(folder: Path) -> Any:
    """The tokenizer of a Hugging Face folder: tokenizer.json, or GPT-2's vocab.json, merges.txt."""
    tokenizer = formats.from_hf_folder(folder)
    _say("tokenizer", "hf", None, f"{tokenizer.vocab_size:,} tokens of {folder}")
    return tokenizer


def pack(corpus: Path, tokenizer: Any) -> Prepared:
    """The corpus as ids of the tokenizer."""
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
    train, val = tokens.splits.train, tokens.splits.val
    per_token = (train.n_bytes + val.n_bytes) / max(1, train.n_tokens + val.n_tokens)
    detail = f"{train.n_tokens:,} to train on, {val.n_tokens:,} to validate"
    _say("tokens", tokens.dtype, seconds, f"{detail}, {per_token:.2f} bytes each")
    ids = {s: data.load(folder, s) for s in SPLITS}
    if len(ids["val"]) < 2:
        raise ValueError(
            f"the validation split is too short ({len(ids['val'])} tokens): give more text, or "
            f"raise corpus.val_fraction={about.source['val_fraction']}"
        )
    return Prepared(tokenizer, ids["train"], ids["val"], about, tokens, folder)


def read(corpus: Path, split: str) -> Iterator[str]:
    """The documents of a prepared corpus's split."""
    with open(corpus / f"{split}.jsonl", encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without a line about each stage: for looking at a run whose stages are there already."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _say(stage: str, name: str, seconds: float | None, detail: str) -> None:
    how = "reused" if seconds is None else f"built in {seconds:.1f} s"
    log.info(f"{stage:<10} {name:<12} {how:<16} {detail}")
