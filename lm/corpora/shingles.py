"""Hashes of the runs of eight words in texts, made with numpy for a block of texts at a time.

    hashes, counts = shingles(["one two three four five six seven eight nine", "short"])
    counts          # array([2, 0]): two runs of eight words in the first text, none in the second

A word is a run of ASCII letters, digits and characters from U+0080 on; case, ASCII punctuation and
that of U+2000 to U+207F (quotation marks, dashes) are passed over. From U+2080 on each character
begins a new word, as Chinese, Japanese and Korean are written without blanks.
"""

import functools

import numpy as np

N_WORDS = 8

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_BASE_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_FEWEST_POWERS = 1 << 18  # are worked out at once: as many as a usual block has bytes
_END = b"\n"  # stands between two texts: no part of a word


def _classes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each byte: its value in lower case, whether it is in a word, whether it begins one."""
    lower = np.arange(256, dtype=np.uint64) + np.uint64(1)
    lower[ord("A") : ord("Z") + 1] = lower[ord("a") : ord("z") + 1]
    in_word = np.zeros(256, bool)
    for byte in b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
        in_word[byte] = True
    in_word[0x80:] = True
    begins = np.zeros(256, bool)
    begins[0xE2:] = True  # the first byte of a character from U+2000 on
    return lower, in_word, begins


_LOWER, _IN_WORD, _BEGINS = _classes()


def shingles(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of every run of N_WORDS words, uint64 (n,), text by text, and their number in each
    text, int64 (len(texts),). A text of fewer words has none.
    """
    data = [text.encode("utf-8", "replace") + _END for text in texts]
    ends_of_texts = np.cumsum([len(d) for d in data])
    raw = np.frombuffer(b"".join(data), np.uint8)
    starts, ends = _word_borders(raw)
    words = _word_hashes(raw, starts, ends)
    n_words = np.diff(np.searchsorted(starts, ends_of_texts), prepend=0)
    counts = np.maximum(n_words - N_WORDS + 1, 0)
    if len(words) < N_WORDS:
        return np.empty(0, np.uint64), counts
    hashes = np.zeros(len(words) - N_WORDS + 1, np.uint64)
    for k in range(N_WORDS):
        hashes *= _BASE
        hashes += words[k : k + len(hashes)]
    hashes = _mixed(hashes)
    # A run that begins in one text and ends in the next is none.
    last_words = np.repeat(np.cumsum(n_words), n_words)[: len(hashes)]
    return hashes[np.arange(len(hashes)) + N_WORDS <= last_words], counts


def _word_borders(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where words begin and end in the bytes, int64 (n_words,) each."""
    in_word = _IN_WORD[raw]
    begins = _BEGINS[raw]
    marks = np.flatnonzero(raw[:-2] == 0xE2)
    marks = marks[raw[marks + 1] <= 0x81]  # U+2000 to U+207F: three bytes each
    for k in range(3):
        in_word[marks + k] = False
    before = np.zeros(len(raw), bool)
    before[1:] = in_word[:-1]
    starts = np.flatnonzero(in_word & (~before | begins))
    stops = np.flatnonzero(~in_word & before)
    # A word ends at the first byte that is in none, or where the next word begins.
    next_start = np.append(starts[1:], len(raw))
    next_stop = stops[np.searchsorted(stops, starts)]
    return starts, np.minimum(next_start, next_stop)


def _word_hashes(raw: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A hash of the bytes of each word, uint64 (n_words,): a polynomial in _BASE, mixed."""
    size = max(1 << len(raw).bit_length(), _FEWEST_POWERS)
    powers = _powers(int(_BASE), size)
    inverses = _powers(int(_BASE_INVERSE), size)
    sums = np.zeros(len(raw) + 1, np.uint64)
    np.cumsum(_LOWER[raw] * powers[: len(raw)], out=sums[1:])
    return _mixed((sums[ends] - sums[starts]) * inverses[starts])


@functools.lru_cache(maxsize=4)  # of both bases, for usual blocks and for larger ones
def _powers(base: int, n: int) -> np.ndarray:
    """base^0, base^1, ... modulo 2^64, uint64 (n,)."""
    powers = np.full(n, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The hashes with every bit depending on every other: the last step of splitmix64."""
    values = values ^ (values >> np.uint64(30))
    values *= _MIX
    values ^= values >> np.uint64(27)
    values *= _BASE
    values ^= values >> np.uint64(31)
    return values
