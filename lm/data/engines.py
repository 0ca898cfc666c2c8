"""What encodes a corpus that is packed: our own tokenizer, or gigatoken, a fast library in Rust
(extra `data`).

    encoder = engines.choose("auto", tokenizer, n_bytes)  # None: the tokenizer itself
    for ids, is_last in encoder.encode_parts(documents, "train.jsonl"): ...

The ids are the same, so the name of the token files does not depend on the engine. What is not sure
to be the same is left to the tokenizer, and the rest is compared with it on the first megabyte.
"""

import functools
import importlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Any

import numpy as np

from lm.system.errors import ConfigError, no_code_for
from lm.tokenizers import BPETokenizer, Tokenizer, formats
from lm.tokenizers.patterns import PATTERNS
from lm.tokenizers.text import Mark, blocks, encode_texts, keep_pages

COMPARED = 1 << 20  # bytes of each file that are encoded twice
# Bytes after which the library begins anew: it forgets no chunk, and takes some ten bytes for each
# byte of a text of new words.
RENEWED = 1 << 26
_WAY_OUT = "give tokenizer.engine=own"
_ASSIGNED, _UNASSIGNED, _UNSEEN = range(3)  # kinds of code points


class CannotEncodeError(ConfigError):
    """Why gigatoken cannot encode for a tokenizer, or is not there."""


def choose(engine: str, tokenizer: Tokenizer, n_bytes: int) -> "Gigatoken | None":
    """gigatoken for a tokenizer and a text of n_bytes, or None for the tokenizer itself.

    `engine` is auto, own or gigatoken; auto leaves a text that would be compared whole to the
    tokenizer. Raises CannotEncodeError where gigatoken is asked for and not there, or of no use.
    """
    if engine not in ("auto", "own", "gigatoken"):
        raise no_code_for("tokenizer.engine", engine)
    if engine == "own" or (engine == "auto" and n_bytes <= COMPARED):
        return None
    try:
        return Gigatoken(tokenizer)
    except CannotEncodeError:
        if engine == "gigatoken":
            raise
    return None


def check(engine: str, tokenizer: Tokenizer | None = None) -> None:
    """Raise CannotEncodeError where gigatoken is asked for, and is not installed or cannot encode
    for the tokenizer.
    """
    if engine == "gigatoken":
        if tokenizer is None:
            _load_hf_json()
        else:
            Gigatoken(tokenizer)


class Gigatoken:
    """gigatoken with the merges of a tokenizer.

    Raises CannotEncodeError if the library is not there, or its ids would not be the same.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._load = _load_hf_json()
        known = " or ".join(PATTERNS)
        cannot = f"tokenizer.engine=gigatoken encodes for BPE with the split pattern {known} alone"
        if not isinstance(tokenizer, BPETokenizer) or tokenizer.priority != "order":
            raise CannotEncodeError(f"{cannot}: {_WAY_OUT}")
        if not tokenizer.splitter.name:
            raise CannotEncodeError(f"{cannot}: {_WAY_OUT}")
        self.name = f"gigatoken {metadata.version('gigatoken')}"
        self.tokenizer = tokenizer
        self.token_bytes = tokenizer.token_lengths()  # (V,)
        self._json = ""
        why: object = "it knows no such split pattern"
        pattern = PATTERNS[tokenizer.splitter.name]
        for spelling in (pattern.regex, *pattern.spellings):
            try:
                self._json = _hf_json(tokenizer, spelling)
                self._renew()
                return
            except (ValueError, RuntimeError) as error:
                why = " ".join(str(error).split())[:200]
        raise CannotEncodeError(
            f"tokenizer.engine=gigatoken cannot encode for this tokenizer ({why}): {_WAY_OUT}"
        )

    def _renew(self) -> None:
        self._encoder = self._load(self._json)
        self._n_bytes = 0

    def encode_parts(
        self, documents: Iterable[str], source: str
    ) -> Iterator[tuple[np.ndarray, bool]]:
        """What the tokenizer's `encode_parts` gives for the documents of `source`, a file.

        Raises ConfigError at the first id of the first megabyte that the tokenizer would not give.
        """
        keep_pages()
        n_compared = 0
        document = 1
        for texts, marks in blocks(documents, self.tokenizer.safe_cut):
            if any(map(has_unassigned, texts)):
                ids, counts = self.tokenizer.encode_marked(texts, marks)
                parts = np.split(ids, np.cumsum(counts)[:-1])
            else:
                parts = self._encode(texts, marks)
            if n_compared < COMPARED:
                n_compared += self._compare(texts, marks, parts, source, document)
            for part, (_, is_last) in zip(parts, marks, strict=True):
                yield part, is_last
                document += is_last

    def _encode(self, texts: list[str], marks: list[Mark]) -> list[np.ndarray]:
        """The ids of each text, by gigatoken."""
        try:
            raw = encode_texts(texts)
        except ValueError:
            self.tokenizer.encode_marked(texts, marks)  # raises the error that counts its offset
            raise
        if self._n_bytes > RENEWED:
            self._renew()
        self._n_bytes += sum(map(len, raw))
        return [self._encoder.encode(data) for data in raw]

    def _compare(
        self,
        texts: list[str],
        marks: list[Mark],
        parts: list[np.ndarray],
        source: str,
        document: int,
    ) -> int:
        """The bytes of the texts; ConfigError where the tokenizer gives other ids for them."""
        ids, counts = self.tokenizer.encode_marked(texts, marks)
        expected = np.split(ids, np.cumsum(counts)[:-1])
        for text, (offset, is_last), part, own in zip(texts, marks, parts, expected, strict=True):
            if not np.array_equal(part, own):
                n_same = min(len(part), len(own))
                differs = np.flatnonzero(part[:n_same] != own[:n_same])
                at = differs[0] if len(differs) else n_same
                n_bytes = int(self.token_bytes[own[:at]].sum())
                before = text.encode()[:n_bytes].decode(errors="ignore")
                raise ConfigError(
                    f"{source}: document {document}, character {offset + len(before)}: {self.name} "
                    f"gives other ids than our own tokenizer: {_WAY_OUT}"
                )
            document += is_last
        return int(self.token_bytes[ids].sum())


def has_unassigned(text: str) -> bool:
    """Whether the text holds a code point without a character in Python's Unicode tables.

    `regex` and gigatoken may take such a code point for different kinds of character, as they know
    other versions of Unicode.
    """
    if text.isascii():
        return False
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    table = _kinds()
    for code in set(codes[table.take(codes) == _UNSEEN].tolist()):
        table[code] = _UNASSIGNED if unicodedata.category(chr(code)) == "Cn" else _ASSIGNED
    return bool((table.take(codes) == _UNASSIGNED).any())


@functools.cache
def _kinds() -> np.ndarray:
    """Kind of each code point, uint8 (0x110000,): _UNSEEN until a text holds it."""
    return np.full(0x110000, _UNSEEN, np.uint8)


def _load_hf_json() -> Callable[[str], Any]:
    """The function of gigatoken that reads a tokenizer.json; CannotEncodeError without it."""
    try:
        return importlib.import_module("gigatoken.gigatoken_rs").load_hf_json
    except ImportError:
        raise CannotEncodeError(
            f"tokenizer.engine=gigatoken needs gigatoken: pip install gigatoken, or {_WAY_OUT}"
        ) from None


def _hf_json(tokenizer: BPETokenizer, pattern: str) -> str:
    """A tokenizer.json without special tokens, which are text like any other in a corpus."""
    state = formats.hf_state(tokenizer)
    state["added_tokens"] = []
    for special in tokenizer.specials:
        del state["model"]["vocab"][special]
    state["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
    return json.dumps(state)
