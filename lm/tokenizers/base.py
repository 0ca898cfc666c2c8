"""What every tokenizer can do: encode, decode, stream, special tokens, fingerprint, save.

    ids = tokenizer.encode("Hello"); tokenizer.decode(ids); tokenizer.save("tokenizer.json")

A subclass supplies `_encode_batch`, `_content` and its tokens. Text never turns into a special
token unless the caller allows that special by name.
"""

import codecs
import functools
import hashlib
import itertools
import json
import os
import re
import warnings
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from lm.tokenizers import parallel
from lm.tokenizers.table import gather
from lm.tokenizers.text import (
    Mark,
    TextError,
    blocks,
    encode_utf8,
    printable,
    replace_surrogates,
    write_atomically,
)

EOT = "<|endoftext|>"
FORMAT, VERSION = "lm-tokenizer", 1
_N_DECODE = 1 << 15  # ids decoded at a time: their arrays stay in the cache
_FEW = 200  # ids below which plain Python decodes faster than numpy
_MUCH_HELD = 1 << 24  # characters that a stream may hold back without a warning
_N_HERE = 512  # blocks encoded before other processes start
# Once a large piece came and went, glibc keeps the memory of a block for the next one: its pages
# are not zeroed again and again.
np.empty(1 << 24, np.uint8)

MAX_VOCAB = 1 << 24  # ids are below: tables have a row for each
_ID_RULE = f"ids are the integers 0..{MAX_VOCAB - 1}"

Specials = Collection[str] | Literal["all"]


class TokenizerFormatError(ValueError):
    """A tokenizer file that cannot be used; the message says what is wrong with it, in one line."""


class Tokenizer:
    """Text to ids and back. `tokens` holds the bytes of each ordinary id, `specials` the id of each
    special; ids may leave gaps, and `vocab_size` is the highest plus one.
    """

    name: ClassVar[str]
    eot: str = EOT  # the special that separates documents; another one in other people's files

    def __init__(self, tokens: dict[int, bytes], specials: dict[str, int]):
        self.specials = dict(specials)
        for i, token in tokens.items():
            if not _is_id(i) or not token:
                raise ValueError(f"id {i!r} of token {token!r}: {_ID_RULE}, and a token has bytes")
        self._special_text: dict[int, str] = {}
        for text, i in self.specials.items():
            if not isinstance(text, str) or not text:
                raise ValueError(f"special token {text!r} must be a string that is not empty")
            if not _is_id(i):
                raise ValueError(f"special token {text!r} has id {i!r}: {_ID_RULE}")
            if i in tokens or self._special_text.setdefault(i, text) != text:
                raise ValueError(f"special token {text!r} has id {i}, which another token has too")
            encode_utf8(text, "the special token")
        self._decoder = tokens | {i: text.encode() for i, text in self._special_text.items()}
        self.vocab_size = max(self._decoder, default=-1) + 1
        self.dtype = np.uint16 if self.vocab_size <= 1 << 16 else np.uint32
        self._token_bytes = [tokens.get(i, b"") for i in range(self.vocab_size)]

    # --- for subclasses

    def _encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts, end to end (n,), and how many belong to each text (len(texts),)."""
        raise NotImplementedError

    def _content(self) -> dict:
        """All that decides ids, as JSON, without what `_state` adds."""
        raise NotImplementedError

    def _safe_cut(self, text: str, at: int) -> int:
        """First place at or after `at` where the text may be cut without changing its ids, else
        len(text).
        """
        return at

    def _last_safe_cut(self, text: str) -> int:
        """Last such place, whatever text still follows; 0 if there is none."""
        return len(text)

    # --- encoding

    @property
    def eot_id(self) -> int:
        """Id of `eot`, usually <|endoftext|>, which separates documents."""
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
        allowed, disallowed = self._special_sets(allowed_special, disallowed_special)
        self._refuse(text, disallowed)
        if not allowed:
            return self.encode_ordinary(text, errors)
        ids: list[int] = []
        done = 0
        for match in _alternatives(allowed).finditer(text):
            ids += _at(done, self.encode_ordinary, text[done : match.start()], errors)
            ids.append(self.specials[match.group()])
            done = match.end()
        return ids + _at(done, self.encode_ordinary, text[done:], errors)

    def encode_ordinary(self, text: str, errors: str = "strict") -> list[int]:
        """Ids of the text, in which specials are text like any other."""
        return self.encode_to_numpy(text, errors).tolist()

    def encode_to_numpy(self, text: str, errors: str = "strict") -> np.ndarray:
        """`encode_ordinary` as an array (n,) of uint16, or uint32 where the vocabulary passes
        65,536.
        """
        if errors != "strict":
            text = replace_surrogates(text, errors)
        return next(self.encode_documents((text,)))

    def encode_documents(self, documents: Iterable[str], n_proc: int = 1) -> Iterator[np.ndarray]:
        """The array of `encode_to_numpy` for each document, in order, a block of text at a time.

        With n_proc above 1 what comes after the first 64 million characters goes to that many new
        processes, which must start and learn the chunks anew: a shorter text is done sooner in one.
        The iterator must then be used up or closed.
        """
        if n_proc < 1:
            raise ValueError(f"n_proc={n_proc} must be at least 1")
        batches = blocks(documents, self._safe_cut)
        here = batches if n_proc == 1 else itertools.islice(batches, _N_HERE)
        results = ((self._encode_marked(texts, marks), marks) for texts, marks in here)
        if n_proc > 1:
            others = parallel.encode(self.to_json, batches, n_proc, self.dtype)
            results = itertools.chain(results, others)
        open_parts: list[np.ndarray] = []
        for (ids, counts), marks in results:
            at = 0
            for count, (_, end) in zip(counts.tolist(), marks, strict=True):
                part = ids[at : at + count]
                at += count
                if end and not open_parts:
                    yield part
                elif end:
                    yield np.concatenate([*open_parts, part])
                    open_parts = []
                else:
                    open_parts.append(part)

    def _encode_marked(self, texts: list[str], marks: list[Mark]):
        try:
            return self._encode_batch(texts)
        except TextError as error:  # tell the offset in the document, not in its part
            raise error.moved(marks[error.index][0]) from None

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
        allowed, disallowed = self._special_sets(allowed_special, disallowed_special)
        watched = _alternatives(allowed | disallowed) if allowed | disallowed else None
        reach = max(map(len, allowed | disallowed), default=1)
        held, size, wait = [], 0, 1
        done = 0  # characters before those held
        for chunk in chunks:
            held.append(chunk)
            size += len(chunk)
            if size < wait:  # wait until the text doubled, so that endless words cost linear time
                continue
            text = "".join(held)
            if watched:
                limit = len(text) - reach + 1  # a special that starts later may not be complete
                while (match := watched.search(text)) and match.start() < limit:
                    yield from _at(done, self.encode, text[: match.end()], allowed, disallowed)
                    done, text = done + match.end(), text[match.end() :]
                    limit = len(text) - reach + 1
                cut = self._last_safe_cut(text[: max(limit, 0)])
            else:
                cut = self._last_safe_cut(text)
            yield from _at(done, self.encode_ordinary, text[:cut])
            done, held, size = done + cut, [text[cut:]], len(text) - cut
            if size > _MUCH_HELD:
                warnings.warn(
                    f"{size:,} characters are in memory and go on growing: {self.name} knows no "
                    "place to cut this text at; encode documents of it, or use pattern=gpt4",
                    stacklevel=2,
                )
            wait = max(2 * size, 1 << 12)
        yield from _at(done, self.encode, "".join(held), allowed, disallowed)

    # --- special tokens

    def _special_sets(
        self, allowed: Specials, disallowed: Specials
    ) -> tuple[frozenset[str], frozenset[str]]:
        allowed_set = frozenset(self.specials if allowed == "all" else allowed)
        disallowed_set = (
            frozenset(self.specials) - allowed_set if disallowed == "all" else frozenset(disallowed)
        )
        if unknown := allowed_set - set(self.specials):
            raise ValueError(
                f"{min(unknown)!r} is no special token here: there are {sorted(self.specials)}"
            )
        return allowed_set, disallowed_set - {""}

    def _refuse(self, text: str, disallowed: frozenset[str]) -> None:
        for special in disallowed:
            if special in text:
                first = _alternatives(disallowed).search(text)
                raise TextError(
                    f"the text holds the special token {first.group()!r} at offset {{offset}}: "
                    "pass it in allowed_special, or disallowed_special=() to encode it as plain "
                    "text",
                    0,
                    first.start(),
                )

    # --- decoding

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens; specials give their text. Raises ValueError for an id out of
        range.
        """
        if type(ids) is not list and not isinstance(ids, np.ndarray | list | tuple):
            ids = list(ids)
        try:
            if len(ids) < _FEW:
                return b"".join(map(self._decoder.__getitem__, ids))
            if isinstance(ids, np.ndarray):
                if ids.dtype.kind not in "ui" or ids.min() < 0 or ids.max() >= self.vocab_size:
                    raise self._no_id(ids)
                numbers = ids
            else:  # far faster than np.array, and it refuses what is no integer of 0..2^32 - 1
                numbers = np.frombuffer(array("I", ids), np.uintc)
            blocks = (numbers[a : a + _N_DECODE] for a in range(0, len(ids), _N_DECODE))
            return b"".join([self._decode_block(block.astype(np.intp)) for block in blocks])
        except (KeyError, TypeError, OverflowError, IndexError):
            raise self._no_id(ids) from None

    def _decode_block(self, ids: np.ndarray) -> bytes:
        pool, start, length = self._pieces
        sizes = length.take(ids)
        if len(self._decoder) < self.vocab_size and not sizes.all():
            raise IndexError("an id that stands for nothing")
        return gather(pool, start.take(ids), sizes).tobytes()

    @functools.cached_property
    def _pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bytes of all ids end to end, and where those of each id start and how many they
        are.
        """
        every = [self._decoder.get(i, b"") for i in range(self.vocab_size)]
        length = np.array([len(token) for token in every], np.int64)
        return np.frombuffer(b"".join(every), np.uint8), np.cumsum(length) - length, length

    def _no_id(self, ids: Iterable) -> ValueError:
        each = ids.tolist() if isinstance(ids, np.ndarray) else ids
        number = (int, np.integer)
        bad = next((i for i in each if not isinstance(i, number) or i not in self._decoder), None)
        known = f"0..{self.vocab_size - 1}" + " with gaps" * (len(self._decoder) < self.vocab_size)
        return ValueError(f"{bad!r:.60} is not an id: they are the integers {known}")

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """The text of the tokens; `errors` as in bytes.decode, where characters are not whole."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_stream(self, ids: Iterable[int], errors: str = "replace") -> Iterator[str]:
        """Text as the ids come in, never half a character; the parts join to `decode` of all
        ids.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors)
        for i in ids:
            if text := decoder.decode(self.decode_bytes((i,))):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def token_bytes(self, i: int) -> bytes:
        """The bytes of one id; b"" for a special, whose text is in `specials`, and for a gap."""
        if not 0 <= i < self.vocab_size:
            raise self._no_id([i])
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

    def _state(self) -> dict:
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "specials": self.specials,
            **({} if self.eot == EOT else {"eot": self.eot}),
            **self._content(),
        }

    def to_json(self) -> str:
        """The tokenizer as the text of its file: the same for the same tokenizer."""
        body = json.dumps(self._state(), ensure_ascii=True, sort_keys=True, separators=(",", ":"))
        return (
            re.sub(r',"(?=merges"|name"|pattern"|specials"|tokens")', ',\n"', body, count=8) + "\n"
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 in hex over all that decides ids."""
        body = json.dumps(self._state(), ensure_ascii=True, sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()

    def save(self, path: str | os.PathLike) -> None:
        """Write the file whole or not at all."""
        write_atomically(Path(path), self.to_json().encode())

    def __reduce__(self):
        raise TypeError(
            "a tokenizer is not pickled: hand over to_json() and use lm.tokenizers.from_json"
        )

    def __repr__(self) -> str:
        return f"<{self.name} tokenizer, {self.vocab_size} ids, {self.fingerprint[:12]}>"


def _at(start: int, encode: Callable[..., list[int]], *args) -> list[int]:
    """encode(*args), whose text begins at `start` of the caller's: errors tell offsets in that."""
    try:
        return encode(*args)
    except TextError as error:
        raise error.moved(start) from None


def _is_id(i: object) -> bool:
    return isinstance(i, int) and not isinstance(i, bool) and 0 <= i < MAX_VOCAB


def _alternatives(specials: Iterable[str]) -> re.Pattern:
    longest_first = sorted(specials, key=lambda s: (-len(s), s))
    return re.compile("|".join(map(re.escape, longest_first)))
