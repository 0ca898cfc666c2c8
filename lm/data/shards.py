"""The training text behind the first part of `corpus=shards`: each shard is packed when it is
needed, or before, by another process (packing.py).

    shards = Shards(corpus, folder, tokenizer)
    ids = shards.ids(3)                 # (n,) uint16 or uint32; packed now, unless it is there

A shard is a stage of the cache like any other: whole or absent, packed once by whoever comes first,
here or on another machine that shares the folder. What a shard holds depends on no other shard: of
near-duplicates it leaves out those of its own documents, and of the validation split.
"""

import functools
import logging
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np

from lm.corpora import near_duplicates, written
from lm.corpora.shards import MB
from lm.corpora.shards import Shards as Text
from lm.data import engines, token_files
from lm.system import files, store
from lm.system.schemas import Repeats, Splits, TokenCounts
from lm.tokenizers import Tokenizer

log = logging.getLogger(__name__)
NOTABLE = 1.0  # seconds of waiting that are told
MAX_MAPPED = 64  # shards whose ids are mapped at a time, as each takes a file descriptor


class Shards:
    """The shards of a text as ids of a tokenizer; `folder` is its prepared first part."""

    def __init__(
        self, text: Text, folder: Path, tokenizer: Tokenizer, engine: str = "auto"
    ) -> None:
        self.text = text
        self.folder = folder
        self.tokenizer = tokenizer
        self.engine = engine  # of engines.choose
        self._stages: dict[int, Path] = {}
        self._intact: set[int] = set()  # packed, and its checksums hold
        self._mapped: OrderedDict[int, np.ndarray] = OrderedDict()  # the last one used is the last

    def __len__(self) -> int:
        return len(self.text.shards)

    def ids(self, number: int) -> np.ndarray:
        """The ids of a shard (n,), memory-mapped. Raises ValueError for a text that is damaged."""
        if number in self._mapped:
            self._mapped.move_to_end(number)
            return self._mapped[number]
        if number not in self._intact or not self.is_packed(number):
            self._pack_aloud(number)
            self._intact.add(number)
        if len(self._mapped) >= MAX_MAPPED:
            self._mapped.popitem(last=False)
        self._mapped[number] = token_files.load(self._stage(number), "train")
        return self._mapped[number]

    def _pack_aloud(self, number: int) -> None:
        """Make sure that a shard is packed; a wait for that is logged."""
        start = time.perf_counter()
        self.pack(number)
        waited = time.perf_counter() - start
        if waited > NOTABLE:
            which = f"{number} of {len(self)}"
            log.info(f"{'shard':<10} {which:<12} waited {waited:.1f} s until it was packed")

    def times_first(self) -> float:
        """How many times as many tokens as the first part's training split there are in all, by
        the bytes of the files."""
        text = self.text
        n_behind = text.n_bytes - text.n_first_bytes
        return 1 + n_behind / text.n_first_bytes / (1 - text.cfg.val_fraction)

    def is_packed(self, number: int) -> bool:
        return self._stage(number).is_dir()

    def pack(self, number: int) -> float | None:
        """Make sure that a shard is packed and intact; the seconds it took, None if it was."""
        stage = self._stage(number)
        return store.build_once(
            stage,
            lambda tmp: self._write(number, tmp),
            lambda folder: token_files.check(folder, self.tokenizer),
        )

    def _stage(self, number: int) -> Path:
        if number not in self._stages:
            key = [self.text.key(number), self._rules, self.tokenizer.fingerprint]
            self._stages[number] = files.cache_dir() / f"shards-{files.fingerprint(key)}"
        return self._stages[number]

    @functools.cached_property
    def _rules(self) -> list[object]:
        """What decides the documents that are left out."""
        if self.text.cfg.near_duplicates == "keep":
            return []
        val = written.documents_file(self.folder, "val")
        return [near_duplicates.RULES, files.sha256(val)]

    def _write(self, number: int, folder: Path) -> None:
        documents = (text for text in self.text.shard(number) if text)
        if self.text.cfg.near_duplicates == "drop":
            documents = near_duplicates.without(documents, Repeats("drop", 0), self._seen())
        encode_parts = None
        encoder = engines.choose(self.engine, self.tokenizer, self.text.cfg.shard_mb * MB)
        if encoder:
            source = f"shard {number} of corpus.path={self.text.cfg.path}"
            encode_parts = functools.partial(encoder.encode_parts, source=source)
        counts = token_files.pack(
            folder, "train", documents, self.tokenizer, ends=True, encode_parts=encode_parts
        )
        (folder / "val.bin").write_bytes(b"")  # of which a stage has one, too
        splits = Splits(counts, TokenCounts(0, 0))
        corpus = files.fingerprint(self.text.key(number))
        token_files.write_record(folder, self.tokenizer, corpus, splits)

    def _seen(self) -> near_duplicates.Seen:
        """What the validation split holds."""
        seen = near_duplicates.Seen()
        for _ in near_duplicates.remembered(written.read(self.folder, "val"), seen):
            pass
        return seen
