"""What every tokenizer can do: encode, decode, stream, special tokens, fingerprint, save.

    ids = tokenizer.encode("Hello"); tokenizer.decode(ids); tokenizer.save("tokenizer.json")

A subclass supplies `encode_batch`, `content` and its tokens. Text never turns into a special token
unless the caller allows that special by name.
"""

import codecs
import functools
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np

from lm.tokenizers import parallel, stream
from lm.tokenizers.decoder import Decoder
from lm.tokenizers.specials import Specials, any_of, refuse_specials, resolve_specials
from lm.tokenizers.text import (
    Batch,
    Mark,
    blocks,
    encode_utf8,
    keep_pages,
    located,
    printable,
    replace_surrogates,
    write_atomically,
)

EOT = "<|endoftext|>"
FORMAT = "lm-tokenizer"
VERSION = 1
N_GROUP = 16  # blocks whose new chunks are learned together
N_LOCAL = 512  # blocks encoded before other processes start
MAX_VOCAB = 1 << 24  # ids are below: tables have a row for each
MAX_FILE_BYTES = 256 << 20  # of a tokenizer's file
_ID_RULE = f"ids are the integers 0..{MAX_VOCAB - 1}"
# Keys of the file before which `to_json` starts a new line.
_LINE_KEYS = re.compile(r',"(?=merges"|name"|pattern"|specials"|tokens")')


class TokenizerFormatError(ValueError):
    """A tokenizer file that cannot be used; the message says what is wrong with it, in one line."""


class Tokenizer:
    """Text to ids and back. `tokens` holds the bytes of each ordinary id, `specials` the id of each
    special; ids may leave gaps, and `vocab_size` is the highest plus one.
    """

    name: ClassVar[str]
    eot: str = EOT  # the special that separates documents; another one in other people's files
    specials: dict[str, int]
    vocab_size: int
    dtype: type[np.uint16] | type[np.uint32]  # of arrays of ids

    def __init__(self, tokens: Mapping[int, bytes], specials: Mapping[str, int]):
        for i, token in tokens.items():
            if not _is_id(i) or not token:
                raise ValueError(f"id {i!r} of token {token!r}: {_ID_RULE}, and a token has bytes")
        self.specials = dict(specials)
        self._special_text = _special_texts(self.specials, tokens)
        special_bytes = {i: text.encode() for i, text in self._special_text.items()}
        self._decoder = Decoder({**tokens, **special_bytes})
        self.vocab_size = self._decoder.vocab_size
        self.dtype = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        self._token_bytes = [tokens.get(i, b"") for i in range(self.vocab_size)]

    # --- for subclasses

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts, end to end (n,), and how many belong to each text (len(texts),)."""
        raise NotImplementedError

    def encode_group(self, batches: list[Batch]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What `encode_marked` gives for each of a few batches."""
        return (self.encode_marked(texts, marks) for texts, marks in batches)

    def content(self) -> dict[str, object]:
        """What decides ids besides the specials, as JSON values: the file's keys of this kind."""
        raise NotImplementedError

    def safe_cut(self, text: str, at: int) -> int:
        """First place at or after `at` where the text may be cut without changing its ids, else
        len(text).
        """
        return at

    def last_safe_cut(self, text: str) -> int:
        """Last place where the text may be cut without changing its ids, whatever text still
        follows; 0 if there is none.
        """
        return len(text)

    # --- encoding

    @property
    def eot_id(self) -> int:
        """Id of `eot`, usually <|endoftext|>, which separates documents. Raises ValueError if the
        tokenizer has no such special.
        """
        if self.eot not in self.specials:
            raise ValueError(
                f"this {self.name} tokenizer has no {self.eot}: train it with "
                f"specials=({self.eot!r},)"
            )
        return self.specials[self.eot]

    def encode(
        self,
        text: str,
        allowed_special: Specials = frozenset(),
        disallowed_special: Specials = "all",
        errors: str = "strict",
    ) -> list[int]:
        """Ids of the text; the specials in it become ids if allowed, and raise ValueError if
        disallowed.

        As in tiktoken, "all" as the disallowed ones means those not allowed; specials in neither
        set are text. Of specials that overlap the longest wins. errors="replace" turns lone
        surrogates into U+FFFD.
        """
        allowed, disallowed = resolve_specials(self.specials, allowed_special, disallowed_special)
        refuse_specials(text, disallowed)
        if not allowed:
            return self.encode_ordinary(text, errors)
        ids: list[int] = []
        done = 0
        for match in any_of(allowed).finditer(text):
            before = text[done : match.start()]
            ids += stream.encode_at(done, self.encode_ordinary, before, errors)
            ids.append(self.specials[match.group()])
            done = match.end()
        ids += stream.encode_at(done, self.encode_ordinary, text[done:], errors)
        return ids

    def encode_ordinary(self, text: str, errors: str = "strict") -> list[int]:
        """Ids of the text, in which specials are text like any other."""
        return self.encode_to_numpy(text, errors).tolist()

    def encode_to_numpy(self, text: str, errors: str = "strict") -> np.ndarray:
        """Ids of the text as an array (n,) of `dtype`: uint16, or uint32 where the vocabulary
        passes 65,536. Specials are text like any other.
        """
        if errors != "strict":
            text = replace_surrogates(text, errors)
        return next(self.encode_documents((text,)))

    def encode_documents(self, documents: Iterable[str], n_proc: int = 1) -> Iterator[np.ndarray]:
        """The array of `encode_to_numpy` for each document, in order: see `encode_parts`."""
        open_parts: list[np.ndarray] = []  # of a document that goes on in the next block
        for part, ends in self.encode_parts(documents, n_proc):
            if not ends:
                open_parts.append(part)
            elif not open_parts:
                yield part
            else:
                yield np.concatenate([*open_parts, part])
                open_parts = []

    def encode_parts(
        self, documents: Iterable[str], n_proc: int = 1
    ) -> Iterator[tuple[np.ndarray, bool]]:
        """The ids of each document, in order, a block of text at a time: a long document comes in
        several arrays, and with each comes whether the document ends with it.

        With n_proc above 1 what comes after the first 64 million characters goes to that many new
        processes, which must start and learn the chunks anew: a shorter text is done sooner in one.
        The iterator must then be used up or closed.
        """
        if n_proc < 1:
            raise ValueError(f"n_proc={n_proc} must be at least 1")
        keep_pages()
        batches = blocks(documents, self.safe_cut)
        local = batches if n_proc == 1 else itertools.islice(batches, N_LOCAL)
        results = self._encode_groups(local)
        if n_proc > 1:
            others = parallel.encode(self.to_json, batches, n_proc, self.dtype)
            results = itertools.chain(results, others)
        for (ids, counts), marks in results:
            at = 0
            for count, (_, ends) in zip(counts.tolist(), marks, strict=True):
                yield ids[at : at + count], ends
                at += count

    def _encode_groups(self, batches: Iterator[Batch]) -> Iterator[parallel.Result]:
        """What `encode_group` gives for each batch, N_GROUP of them at a time."""
        while group := list(itertools.islice(batches, N_GROUP)):
            for encoded, (_, marks) in zip(self.encode_group(group), group, strict=True):
                yield encoded, marks

    def encode_marked(self, texts: list[str], marks: list[Mark]) -> tuple[np.ndarray, np.ndarray]:
        """`encode_batch` of parts of documents: errors give offsets in the document."""
        with located(marks):
            return self.encode_batch(texts)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids that decode to exactly these bytes; for valid UTF-8 those of `encode_ordinary`."""
        return self.encode_ordinary(data.decode("utf-8"))

    def encode_iterable(
        self,
        chunks: Iterable[str],
        allowed_special: Specials = frozenset(),
        disallowed_special: Specials = "all",
    ) -> Iterator[int]:
        """The ids `encode` gives for the joined chunks, wherever they were cut.

        Holds back only what later text can still change: for bpe with a split pattern that is not
        made of the parts of published ones that is all of it, and a warning says so.
        """
        return stream.encode_stream(self, chunks, allowed_special, disallowed_special)

    # --- decoding

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens; specials give their text. Raises ValueError for an id out of
        range.
        """
        return self._decoder.decode(ids)

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of the tokens; `errors` as in bytes.decode, where characters are not whole."""
        return self._decoder.decode(ids).decode("utf-8", errors)

    def decode_stream(self, ids: Iterable[int], errors: str = "replace") -> Iterator[str]:
        """Text as the ids come in, never half a character; the parts join to `decode` of all
        ids.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors)
        for i in ids:
            text = decoder.decode(self._decoder.decode((i,)))
            if text:
                yield text
        rest = decoder.decode(b"", final=True)
        if rest:
            yield rest

    def token_bytes(self, i: int) -> bytes:
        """The bytes of one id; b"" for a special, whose text is in `specials`, and for a gap."""
        if not 0 <= i < self.vocab_size:
            raise self._decoder.unknown_id([i])
        return self._token_bytes[i]

    def token_lengths(self) -> np.ndarray:
        """Bytes of each id, int64 (vocab_size,), 0 for specials: what bits per byte divides by."""
        return np.array([len(token) for token in self._token_bytes], np.int64)

    def show(self, i: int) -> str:
        """The token for the eye, on one line: control characters and broken UTF-8 are escaped."""
        if i in self._special_text:
            return printable(self._special_text[i])
        return printable(self.token_bytes(i).decode("utf-8", "backslashreplace"))

    # --- files

    def _state(self) -> dict[str, object]:
        state: dict[str, object] = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "specials": self.specials,
        }
        if self.eot != EOT:
            state["eot"] = self.eot
        state.update(self.content())
        return state

    def to_json(self) -> str:
        """The tokenizer as the text of its file: the same for the same tokenizer."""
        body = json.dumps(self._state(), ensure_ascii=True, sort_keys=True, separators=(",", ":"))
        return _LINE_KEYS.sub(',\n"', body, count=8) + "\n"

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 in hex over all that decides ids."""
        body = json.dumps(self._state(), ensure_ascii=True, sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all. Raises ValueError for one too large to be read."""
        data = self.to_json().encode()
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(
                f"{path} would have {len(data):,} bytes, and a tokenizer's file may have "
                f"{MAX_FILE_BYTES:,}: give a smaller vocab_size"
            )
        write_atomically(Path(path), data)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a tokenizer is not pickled: hand over to_json() and use lm.tokenizers.from_json"
        )

    def __repr__(self) -> str:
        return f"<{self.name} tokenizer, {self.vocab_size} ids, {self.fingerprint[:12]}>"


def _special_texts(specials: Mapping[str, int], tokens: Mapping[int, bytes]) -> dict[int, str]:
    """The text of each special by id. Raises ValueError for a text or an id that cannot be one."""
    text_of: dict[int, str] = {}
    for text, i in specials.items():
        if not isinstance(text, str) or not text:
            raise ValueError(f"special token {text!r} must be a string that is not empty")
        if not _is_id(i):
            raise ValueError(f"special token {text!r} has id {i!r}: {_ID_RULE}")
        if i in tokens or i in text_of:
            raise ValueError(f"special token {text!r} has id {i}, which another token has too")
        encode_utf8(text, "the special token")
        text_of[i] = text
    return text_of


def _is_id(i: object) -> bool:
    return isinstance(i, int) and not isinstance(i, bool) and 0 <= i < MAX_VOCAB
