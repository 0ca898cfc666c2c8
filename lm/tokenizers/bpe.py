"""Byte-level byte-pair encoding behind a split pattern: encode by merge rank, a block of text at a
time.

    tokenizer = BPETokenizer.of_merges([(104, 105, 256)]); tokenizer.encode_ordinary("hi")   # [256]

`split` finds the chunks, a `Table` maps each chunk seen before to its ids, and only new chunks are
merged: short ones together in numpy, single ones in plain Python, long ones with a heap.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import regex

from lm.tokenizers.base import EOT, Tokenizer
from lm.tokenizers.merge import Merges
from lm.tokenizers.split import Splitter, find_chunks
from lm.tokenizers.table import MAX_KEY_BYTES, Table, distinct, gather, pack, words
from lm.tokenizers.text import encode_texts

PRIORITIES = ("order", "new-id")

_COUNT_BITS = (
    28  # of a table value: how many ids a chunk has; the rest is where they start in the pool
)
_MAX_ENTRY, _MAX_POOL = 1 << 20, 1 << 23  # of the chunks remembered; past that they are forgotten
_MAX_PIECE = 64  # characters of a remembered piece: a longer one hardly comes again
_NOT_UTF8 = re.compile("([\udc80-\udcff]+)")
_SHORT_TEXT = 1800  # characters below which plain Python is faster than numpy


class BPETokenizer(Tokenizer):
    """`tokens` maps each ordinary id to its bytes, `merges` lists (left id, right id, new id).

    Merges apply in the order of the list, or with priority="new-id" in the order of their new ids,
    equal ones from the left: tiktoken's rule, where several pairs make one token.
    """

    name = "bpe"

    def __init__(
        self,
        tokens: dict[int, bytes],
        merges: Sequence[tuple[int, int, int]],
        pattern: str = "gpt4",
        specials: dict[str, int] | None = None,
        tie_break: str = "",
        priority: str = "order",
    ):
        super().__init__(tokens, specials or {})
        self.splitter = Splitter(pattern)
        self.pattern = self.splitter.name or pattern
        self.merges = [tuple(merge) for merge in merges]
        self.tie_break, self.priority = tie_break, priority
        if priority not in PRIORITIES:
            raise ValueError(f"priority={priority!r} is not one of {', '.join(PRIORITIES)}")
        _check_merges(tokens, self.merges, ordered=priority == "order")
        self._byte_ids = _byte_ids(tokens)
        self._merger = Merges(self.merges, self._byte_ids, by_new_id=priority == "new-id")
        self._forget()

    @classmethod
    def of_merges(
        cls,
        merges: Iterable[tuple[int, int, int]],
        pattern: str = "gpt4",
        specials: Sequence[str] = (EOT,),
        tie_break: str = "first-pair",
    ) -> "BPETokenizer":
        """Of merges as `learn_merges` gives them: bytes are 0..255, new ids follow, specials come
        last.
        """
        tokens = {b: bytes([b]) for b in range(256)}
        merges = list(merges)
        for left, right, new in merges:
            tokens[new] = tokens[left] + tokens[right]
        return cls(
            tokens, merges, pattern, {s: len(tokens) + k for k, s in enumerate(specials)}, tie_break
        )

    @classmethod
    def of_vocab(
        cls,
        vocab: dict[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        pattern: str = "gpt2",
        specials: dict[str, int] | None = None,
    ) -> "BPETokenizer":
        """Of a vocabulary with any ids and merges by bytes, as GPT-2 and Hugging Face publish
        them.
        """
        id_of = {token: i for i, token in vocab.items()}
        if len(id_of) < len(vocab):
            double = next(token for i, token in vocab.items() if id_of[token] != i)
            raise ValueError(
                f"two ids hold the same bytes {double!r}, so merges by bytes are ambiguous"
            )
        triples = []
        for rank, (left, right) in enumerate(merges):
            for part in (left, right, left + right):
                if part not in id_of:
                    raise ValueError(
                        f"merge {rank} ({left!r}, {right!r}): {part!r} is not in the vocabulary"
                    )
            triples.append((id_of[left], id_of[right], id_of[left + right]))
        return cls(vocab, triples, pattern, specials)

    def truncate(self, n: int) -> "BPETokenizer":
        """The tokenizer that a training with vocab_size=n would have given, n at most our
        vocab_size.
        """
        n_merge = n - 256 - len(self.specials)
        if not 0 <= n_merge <= len(self.merges):
            low = 256 + len(self.specials)
            raise ValueError(f"truncate({n}): must lie in {low}..{self.vocab_size}")
        for k, (_, _, new) in enumerate(self.merges):
            if new != 256 + k:
                raise ValueError("only a tokenizer whose ids follow its merges can be truncated")
        ordered = sorted(self.specials, key=self.specials.get)
        return BPETokenizer.of_merges(self.merges[:n_merge], self.pattern, ordered, self.tie_break)

    # --- encoding

    def encode_ordinary(self, text: str, errors: str = "strict") -> list[int]:
        if errors != "strict" or not isinstance(text, str) or len(text) > _SHORT_TEXT:
            return self.encode_to_numpy(text, errors).tolist()
        ids: list[int] = []
        known = self._by_piece
        for piece in self.splitter.pieces(text):
            if (found := known.get(piece)) is None:
                if not piece.isascii():
                    encode_texts([text])  # names a lone surrogate by its offset in the whole text
                found = self._encode_piece(piece)
                if len(known) >= _MAX_ENTRY:
                    known.clear()
                if len(piece) <= _MAX_PIECE:
                    known[piece] = found
            ids += found
        return ids

    def _encode_piece(self, piece: str) -> list[int]:
        ids: list[int] = []
        known = self._by_chunk
        for chunk in self.splitter.chunks(piece):
            if (found := known.get(chunk)) is None:
                found = self._merger.encode(chunk.encode())
                if len(known) >= _MAX_ENTRY:
                    known.clear()
                known[chunk] = found
            ids += found
        return ids

    def unreached(self) -> list[int]:
        """The ids of tokens that the merges do not make of their own bytes."""
        length = self.token_lengths()
        ids = np.flatnonzero(length)
        start, data = np.cumsum(length) - length, b"".join(self._token_bytes)
        _, count = self._merger.encode_many(data, start[ids], length[ids])
        return ids[count > 1].tolist()

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids that decode to exactly these bytes: valid UTF-8 as text, each stretch of other bytes
        as a chunk.
        """
        text = data.decode(
            "utf-8", "surrogateescape"
        )  # a byte that is no UTF-8 becomes U+DC80..U+DCFF
        ids: list[int] = []
        for k, part in enumerate(_NOT_UTF8.split(text)):
            if k % 2:
                ids += self._merger.encode(part.encode("utf-8", "surrogateescape"))
            else:
                ids += self.encode_ordinary(part)
        return ids

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        raw = encode_texts(texts)
        if self.splitter.known:
            data, start, length, text_of = find_chunks(self.splitter, texts, raw)
            value = self._lookup(data, start, length)
        else:
            chunks = [self.splitter.chunks(text) for text in texts]
            encoded = [chunk.encode() for part in chunks for chunk in part]
            data = b"".join(encoded)
            length = np.array([len(chunk) for chunk in encoded], np.int64)
            value = self._lookup(data, np.cumsum(length) - length, length)
            text_of = np.cumsum([0] + [len(part) for part in chunks])
        count = value & ((1 << _COUNT_BITS) - 1)
        ids = gather(self._pool, value >> _COUNT_BITS, count)
        until = np.concatenate(([0], np.cumsum(count)))[text_of]
        if self._table.n_entry > _MAX_ENTRY or self._pool_len > _MAX_POOL:
            self._forget()
        return ids, np.diff(until)

    def _lookup(self, data: bytes, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Per chunk, int64: where its ids start in the pool, and in the low bits how many there
        are.
        """
        is_long = np.flatnonzero(length > MAX_KEY_BYTES)
        lo, hi = pack(words(data), start, np.minimum(length, MAX_KEY_BYTES))
        value = self._table.find(lo, hi)
        value[is_long] = 0
        missing = np.flatnonzero(value < 0)
        first, number = distinct(lo[missing], hi[missing])
        first = missing[first]
        spans = zip(start[is_long].tolist(), length[is_long].tolist(), strict=True)
        long = [data[a : a + n] for a, n in spans]
        place = dict(zip(long, is_long.tolist(), strict=True))
        new_long = [chunk for chunk in place if chunk not in self._long]
        at = np.append(first, np.array([place[chunk] for chunk in new_long], np.intp))
        new = self._learn(data, start[at], length[at])
        self._table.insert(lo[first], hi[first], new[: len(first)])
        value[missing] = new[number]
        self._long.update(zip(new_long, new[len(first) :].tolist(), strict=True))
        value[is_long] = [self._long[chunk] for chunk in long]
        return value

    def _learn(self, data: bytes, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Encode new chunks and put their ids into the pool; their table values."""
        if not len(start):
            return np.zeros(0, np.int64)
        ids, count = self._merger.encode_many(data, start, length)
        first = self._pool_len
        self._pool_len += len(ids)
        if self._pool_len > len(self._pool):
            grown = np.zeros(2 * self._pool_len, self.dtype)
            grown[:first] = self._pool[:first]
            self._pool = grown
        self._pool[first : self._pool_len] = ids
        return (first + np.cumsum(count) - count) << _COUNT_BITS | count

    def _forget(self) -> None:
        """Start over with an empty memory of chunks; ids never depend on it."""
        self._table = Table()
        self._long: dict[bytes, int] = {}
        self._by_piece: dict[str, list[int]] = {}  # between safe cuts, of one or more chunks
        self._by_chunk: dict[str, list[int]] = {}
        self._pool = np.zeros(1 << 12, self.dtype)
        self._pool_len = 0

    def safe_cut(self, text: str, at: int) -> int:
        return self.splitter.safe_cut(text, at)

    def last_safe_cut(self, text: str) -> int:
        return self.splitter.last_safe_cut(text)

    def content(self) -> dict[str, object]:
        return {
            "pattern": self.pattern,
            "regex": regex.__version__,  # its Unicode tables decide what is a letter
            "tie_break": self.tie_break,
            "priority": self.priority,
            "tokens": [
                token.hex() if i in self._decoder.tokens else None  # None: a gap in the ids
                for i, token in enumerate(self._token_bytes)
            ],
            "merges": [list(merge) for merge in self.merges],
        }


def _byte_ids(tokens: dict[int, bytes]) -> list[int]:
    single = {token[0]: i for i, token in tokens.items() if len(token) == 1}
    for byte in range(256):
        if byte not in single:
            raise ValueError(
                f"byte 0x{byte:02x} is not in the vocabulary: without all 256 some text has no ids"
            )
    return [single[byte] for byte in range(256)]


def _check_merges(
    tokens: dict[int, bytes], merges: Sequence[tuple[int, int, int]], ordered: bool
) -> None:
    made = {i for i, token in tokens.items() if len(token) == 1}
    seen = set()
    for rank, (left, right, new) in enumerate(merges):
        for i in (left, right, new):
            if i not in tokens:
                raise ValueError(
                    f"merge {rank} ({left}, {right}, {new}): {i} is not an ordinary token"
                )
        for i in (left, right) if ordered else ():
            if i not in made:
                raise ValueError(
                    f"merge {rank} ({left}, {right}, {new}): no earlier merge makes {i}"
                )
        if tokens[left] + tokens[right] != tokens[new]:
            raise ValueError(
                f"merge {rank} ({left}, {right}, {new}): the parts do not join to the new token"
            )
        if (left, right) in seen:
            raise ValueError(f"merge {rank} ({left}, {right}, {new}): this pair was merged before")
        seen.add((left, right))
        made.add(new)
