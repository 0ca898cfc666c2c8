"""Byte-level byte-pair encoding behind a split pattern: encode by merge rank, a block of text at a
time.

    tokenizer = BPETokenizer.of_merges([(104, 105, 256)]); tokenizer.encode_ordinary("hi")   # [256]

`split` finds the chunks, a `Table` maps each chunk seen before to its number, and only new chunks
are merged: short ones together in numpy, single ones in plain Python, long ones with a heap.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import regex

from lm.tokenizers.base import EOT, Tokenizer
from lm.tokenizers.merge import Merge, Merges
from lm.tokenizers.split import Splitter, find_chunks
from lm.tokenizers.table import MAX_KEY_BYTES, Table, distinct, gather, pack, words
from lm.tokenizers.text import Batch, encode_texts, located

PRIORITIES = ("order", "new-id")

# The chunks and pieces remembered, and the ids of those chunks: past that they are forgotten.
MAX_KNOWN = 1 << 20
MAX_POOL = 1 << 23
MAX_PIECE_LEN = 64  # characters of a remembered piece: a longer one hardly comes again
# The low bits of a chunk's place: how many ids it has. The rest is where they start in the pool.
_COUNT_BITS = 28
_NOT_UTF8 = re.compile("([\udc80-\udcff]+)")
_SHORT_LEN = 1800  # characters below which plain Python is faster than numpy


class BPETokenizer(Tokenizer):
    """`tokens` maps each ordinary id to its bytes, `merges` lists (left id, right id, new id).

    Merges apply in the order of the list, or with priority="new-id" in the order of their new ids,
    equal ones from the left: tiktoken's rule, where several pairs make one token.
    """

    name = "bpe"

    def __init__(
        self,
        tokens: dict[int, bytes],
        merges: Iterable[Merge],
        pattern: str = "gpt4",
        specials: dict[str, int] | None = None,
        tie_break: str = "",
        priority: str = "order",
    ):
        super().__init__(tokens, specials or {})
        self.splitter = Splitter(pattern)
        self.pattern = self.splitter.name or pattern
        self.merges = [(left, right, new) for left, right, new in merges]
        self.tie_break = tie_break
        self.priority = priority
        if priority not in PRIORITIES:
            raise ValueError(f"priority={priority!r} is not one of {', '.join(PRIORITIES)}")
        _check_merges(tokens, self.merges, ordered=priority == "order")
        self._merger = Merges(self.merges, _byte_ids(tokens), by_new_id=priority == "new-id")
        self.forget_chunks()

    @classmethod
    def of_merges(
        cls,
        merges: Iterable[Merge],
        pattern: str = "gpt4",
        specials: Sequence[str] = (EOT,),
        tie_break: str = "first-pair",
    ) -> "BPETokenizer":
        """The tokenizer of merges as `learn_merges` gives them: ids 0..255 are the bytes, the new
        ids follow, specials come last.
        """
        tokens = {b: bytes([b]) for b in range(256)}
        merges = list(merges)
        for left, right, new in merges:
            tokens[new] = tokens[left] + tokens[right]
        special_ids = {special: len(tokens) + k for k, special in enumerate(specials)}
        return cls(tokens, merges, pattern, special_ids, tie_break)

    @classmethod
    def of_vocab(
        cls,
        vocab: dict[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        pattern: str = "gpt2",
        specials: dict[str, int] | None = None,
    ) -> "BPETokenizer":
        """The tokenizer of a vocabulary with any ids and of merges by bytes, as GPT-2 and Hugging
        Face publish them. Raises ValueError if two ids hold the same bytes, or a merge has a part
        or a result without an id.
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
        """The tokenizer that a training with vocab_size=n would have given. Raises ValueError if
        the merges do not reach n, or the ids do not follow them.
        """
        n_merge = n - 256 - len(self.specials)
        if not 0 <= n_merge <= len(self.merges):
            low = 256 + len(self.specials)
            raise ValueError(f"truncate({n}): must lie in {low}..{self.vocab_size}")
        for k, (_, _, new) in enumerate(self.merges):
            if new != 256 + k:
                raise ValueError("only a tokenizer whose ids follow its merges can be truncated")
        ordered = sorted(self.specials, key=self.specials.__getitem__)
        return BPETokenizer.of_merges(self.merges[:n_merge], self.pattern, ordered, self.tie_break)

    # --- encoding

    def encode_ordinary(self, text: str, errors: str = "strict") -> list[int]:
        if errors != "strict" or not isinstance(text, str) or len(text) > _SHORT_LEN:
            return self.encode_to_numpy(text, errors).tolist()
        ids: list[int] = []
        known = self._by_piece
        for piece in self.splitter.pieces(text):
            found = known.get(piece)
            if found is None:
                if not piece.isascii():
                    encode_texts([text])  # names a lone surrogate by its offset in the whole text
                found = self._encode_piece(piece)
                if len(known) >= MAX_KNOWN:
                    known.clear()
                if len(piece) <= MAX_PIECE_LEN:
                    known[piece] = found
            ids += found
        return ids

    def _encode_piece(self, piece: str) -> list[int]:
        ids: list[int] = []
        known = self._by_chunk
        for chunk in self.splitter.chunks(piece):
            found = known.get(chunk)
            if found is None:
                found = self._merger.encode(chunk.encode())
                if len(known) >= MAX_KNOWN:
                    known.clear()
                known[chunk] = found
            ids += found
        return ids

    def unreached(self) -> list[int]:
        """The ids of tokens that the merges do not make of their own bytes."""
        length = self.token_lengths()
        ids = np.flatnonzero(length)
        start = np.cumsum(length) - length
        data = b"".join(self._token_bytes)
        _, count = self._merger.encode_many(data, start[ids], length[ids])
        return ids[count > 1].tolist()

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids that decode to exactly these bytes: valid UTF-8 as text, each stretch of other bytes
        as a chunk.
        """
        # A byte that is no UTF-8 becomes U+DC80..U+DCFF, so every second part is of such bytes.
        text = data.decode("utf-8", "surrogateescape")
        ids: list[int] = []
        for k, part in enumerate(_NOT_UTF8.split(text)):
            if k % 2 == 1:
                ids += self._merger.encode(part.encode("utf-8", "surrogateescape"))
            else:
                ids += self.encode_ordinary(part)
        return ids

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        found = self._find_chunks(texts)
        self._learn_new()
        return self._ids(*found)

    def encode_group(self, batches: list[Batch]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        found = []
        for texts, marks in batches:
            with located(marks):
                found.append(self._find_chunks(texts))
        self._learn_new()
        for chunks, text_of in found:
            yield self._ids(chunks, text_of)
        if self._table.n_entry > MAX_KNOWN or self._pool_len > MAX_POOL:
            self.forget_chunks()

    def _find_chunks(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """The number of each chunk of the texts, int64 (n,), and per text its first chunk, with n
        at the end.
        """
        raw = encode_texts(texts)
        if self.splitter.starts is not None:
            data, start, length, text_of = find_chunks(self.splitter.starts, texts, raw)
        else:
            chunks = [self.splitter.chunks(text) for text in texts]
            encoded = [chunk.encode() for part in chunks for chunk in part]
            data = b"".join(encoded)
            length = np.array([len(chunk) for chunk in encoded], np.int64)
            start = np.cumsum(length) - length
            text_of = np.cumsum([0] + [len(part) for part in chunks])
        return self._number(data, start, length), text_of

    def _ids(self, chunks: np.ndarray, text_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids of chunks that were learned, end to end, and how many each text has."""
        place = self._places.take(chunks)
        count = place & ((1 << _COUNT_BITS) - 1)
        ids = gather(self._pool, place >> _COUNT_BITS, count)
        until = np.concatenate(([0], np.cumsum(count)))[text_of]
        return ids, np.diff(until)

    def _number(self, data: bytes, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        """The number of each chunk, int64 (n,). New chunks get the next ones, and are to be learned
        before their ids are asked for.
        """
        is_long = np.flatnonzero(length > MAX_KEY_BYTES)
        lo, hi = pack(words(data), start, np.minimum(length, MAX_KEY_BYTES))
        number = self._table.find(lo, hi)
        number[is_long] = 0
        missing = np.flatnonzero(number < 0)
        first, which = distinct(lo[missing], hi[missing])
        first = missing[first]
        new = np.arange(self._n_chunk, self._n_chunk + len(first))
        self._table.insert(lo[first], hi[first], new)
        number[missing] = new[which]
        self._add_new(data, start[first], length[first])
        ends = start[is_long] + length[is_long]
        long = [data[a:b] for a, b in zip(start[is_long].tolist(), ends.tolist(), strict=True)]
        place = dict(zip(long, is_long.tolist(), strict=True))
        new_long = [chunk for chunk in place if chunk not in self._long]
        self._long.update(zip(new_long, itertools.count(self._n_chunk)))
        at = [place[chunk] for chunk in new_long]
        self._add_new(data, start[at], length[at])
        number[is_long] = [self._long[chunk] for chunk in long]
        return number

    def _add_new(self, data: bytes, start: np.ndarray, length: np.ndarray) -> None:
        """Keep chunks until they are learned, with the numbers that follow."""
        if len(start):
            self._new.append(gather(np.frombuffer(data, np.uint8), start, length))
            self._new_lengths.append(length)
            self._n_chunk += len(start)

    def _learn_new(self) -> None:
        """Encode the new chunks, many at a time, and put their ids into the pool."""
        if not self._new:
            return
        length = np.concatenate(self._new_lengths)
        start = np.cumsum(length) - length
        ids, count = self._merger.encode_many(np.concatenate(self._new).tobytes(), start, length)
        at = self._pool_len + np.cumsum(count) - count
        self._pool = _extended(self._pool, self._pool_len, ids)
        self._pool_len += len(ids)
        n_learned = self._n_chunk - len(length)
        self._places = _extended(self._places, n_learned, at << _COUNT_BITS | count)
        self._new = []
        self._new_lengths = []

    def forget_chunks(self) -> None:
        """Empty the memory of chunks that were encoded before; ids never depend on it."""
        self._table = Table()
        self._long: dict[bytes, int] = {}
        self._by_piece: dict[str, list[int]] = {}  # between safe cuts, of one or more chunks
        self._by_chunk: dict[str, list[int]] = {}
        self._pool = np.zeros(1 << 12, self.dtype)  # the ids of all chunks
        self._pool_len = 0
        self._places = np.zeros(1 << 12, np.int64)  # of each chunk in the pool
        self._n_chunk = 0
        self._new: list[np.ndarray] = []  # bytes of chunks that are not in the pool yet
        self._new_lengths: list[np.ndarray] = []

    def safe_cut(self, text: str, at: int) -> int:
        return self.splitter.safe_cut(text, at)

    def last_safe_cut(self, text: str) -> int:
        return self.splitter.last_safe_cut(text)

    def content(self) -> dict[str, object]:
        known = self._decoder.tokens
        tokens = [
            token.hex() if i in known else None  # None: a gap in the ids
            for i, token in enumerate(self._token_bytes)
        ]
        return {
            "pattern": self.pattern,
            "regex": regex.__version__,  # its Unicode tables decide what is a letter
            "tie_break": self.tie_break,
            "priority": self.priority,
            "tokens": tokens,
            "merges": [list(merge) for merge in self.merges],
        }


def _extended(array: np.ndarray, n: int, more: np.ndarray) -> np.ndarray:
    """The array with `more` behind its first n entries, which it has room for or is copied."""
    end = n + len(more)
    if end > len(array):
        grown = np.zeros(2 * end, array.dtype)
        grown[:n] = array[:n]
        array = grown
    array[n:end] = more
    return array


def _byte_ids(tokens: dict[int, bytes]) -> list[int]:
    """The id of each byte. Raises ValueError if one has none."""
    single = {token[0]: i for i, token in tokens.items() if len(token) == 1}
    for byte in range(256):
        if byte not in single:
            raise ValueError(
                f"byte 0x{byte:02x} is not in the vocabulary: without all 256 some text has no ids"
            )
    return [single[byte] for byte in range(256)]


def _check_merges(tokens: dict[int, bytes], merges: Sequence[Merge], ordered: bool) -> None:
    """Raise ValueError at a merge that names no token, does not join to its result, or comes twice,
    and, if `ordered`, at one that comes before its parts.
    """
    made = {i for i, token in tokens.items() if len(token) == 1}
    pairs: set[tuple[int, int]] = set()
    for rank, (left, right, new) in enumerate(merges):
        problem = ""
        for i in (left, right, new):
            if i not in tokens:
                problem = problem or f"{i} is not an ordinary token"
        for i in (left, right):
            if ordered and i not in made:
                problem = problem or f"no earlier merge makes {i}"
        if not problem and tokens[left] + tokens[right] != tokens[new]:
            problem = "the parts do not join to the new token"
        if (left, right) in pairs:
            problem = problem or "this pair was merged before"
        if problem:
            raise ValueError(f"merge {rank} ({left}, {right}, {new}): {problem}")
        pairs.add((left, right))
        made.add(new)
