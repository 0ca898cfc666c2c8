"""Cut text into the chunks of a split pattern: GPT-2's and GPT-4's with numpy, any other with
`regex`.

    splitter = Splitter("gpt4"); splitter.chunks("I'm 12345!")   # ['I', "'m", ' ', '123', '45',
    '!']

For the two known patterns `starts` finds all boundaries at once: what decides a boundary is the
class of a character (letter, digit, white space, ...), those of its neighbours, and a few run
lengths. The classes of characters beyond ASCII are read off `regex` itself, so both ways agree by
construction on every Unicode version.
"""

import functools
import re

import numpy as np
import regex

# The published patterns. In Python `regex`, \s leaves out U+001C-001F, which `re` counts as white
# space.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4 = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
PATTERNS = {"gpt2": GPT2, "gpt4": GPT4}

# Other spellings of the same two languages, as tiktoken and GPT-2's own code publish them. Not
# tiktoken 0.14's of cl100k: its \s++$ takes the white space that ends a text whole, with its line
# breaks.
_SAME = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": "gpt2",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s": "gpt2",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "gpt4",
    GPT2: "gpt2",
    GPT4: "gpt4",
}

# Classes: END is the border of a text, SP the space itself, WS any other white space but line
# breaks.
END, LETTER, DIGIT, OTHER, WS, SP, NL, UNSEEN = range(8)

# Alternatives of published patterns (these two, Llama 3, Qwen, nanochat, o200k) that never match a
# space after a non-space, nor a line break between two non-spaces (but for "/", which o200k takes),
# and look at most one character ahead, for a non-space. In a pattern made of these, text may be cut
# in such places: either side splits by itself. Nothing is known of other patterns.
_NO_LETTER = r"[^\r\n\p{L}\p{N}]"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SAFE_PARTS = (
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"),
    *(r"'(?:[sdmt]|ll|ve|re)", r"'(?i:[sdmt]|ll|ve|re)", _ENDINGS),
    *(
        rf"{prefix}\p{{L}}{n}"
        for prefix in (" ?", f"{_NO_LETTER}?", f"{_NO_LETTER}?+")
        for n in ("+", "++")
    ),
    *(f"{_NO_LETTER}?{_UPPER}{a}{_LOWER}{b}{_ENDINGS}?" for a, b in ("*+", "+*")),
    *(r"\p{N}", r"\p{N}{1,2}", r"\p{N}{1,3}", r"\p{N}{1,3}+", r" ?\p{N}+", r" ?\p{N}++"),
    *(
        rf" ?[^\s\p{{L}}\p{{N}}]{n}{tail}"
        for n in ("+", "++")
        for tail in ("", r"[\r\n]*", r"[\r\n]*+", r"[\r\n/]*")
    ),
    *(r"\s*[\r\n]", r"\s*[\r\n]+", r"\s++$", r"\s+(?!\S)", r"\s+", r"\s"),
)
_SAFE_CUT = r"(?:\S(?= )|\S\n(?=[^\s/]))"
_FIRST_CUT, _LAST_CUT = regex.compile(_SAFE_CUT), regex.compile(f"(?r){_SAFE_CUT}")
# The text between such cuts, but for some that are left out. `re` is far faster than `regex`, and
# its \s holds all that is \s there.
_PIECE = re.compile(r"\s*\S+(?:\n(?=[^\s/])|(?:(?! )\s+\S+)*(?:(?! )\s+\Z)?)|\s+")
_TIMEOUT = (5.0, 2e-5)  # seconds, and seconds a character, for patterns nobody has proved


class Splitter:
    """One split pattern: its chunks, its boundaries as an array, and places where it is safe to
    cut.
    """

    def __init__(self, pattern: str):
        self.name = pattern if pattern in PATTERNS else _SAME.get(pattern, "")
        self.pattern = PATTERNS.get(self.name, pattern)
        if not isinstance(pattern, str) or not pattern or len(pattern) > 10_000:
            raise ValueError(
                "the split pattern must be a regular expression of 1 to 10,000 characters"
            )
        try:
            self._regex = regex.compile(self.pattern)
        except (regex.error, RecursionError, OverflowError) as error:
            raise ValueError(
                f"the split pattern {_short(pattern)} does not compile: {error}"
            ) from None
        self.safe = _is_safe(self.pattern)  # whether there are places where text may be cut
        if not self.name:
            self._self_test()

    @property
    def known(self) -> bool:
        """Whether boundaries come from `starts`."""
        return bool(self.name)

    def _self_test(self) -> None:
        for probe in ("a b\n 12 .'s \u00e9\u4e2d", "x" * 40, " " * 40, "1" * 40, "(" * 40 + "a"):
            self.chunks(probe, limit=0.3)

    def chunks(self, text: str, limit: float | None = None) -> list[str]:
        """The chunks in order; they join to the text. Raises ValueError where a custom pattern
        skips text.
        """
        if self.name:
            return self._regex.findall(text)
        limit = limit or _TIMEOUT[0] + _TIMEOUT[1] * len(text)
        try:
            found = [m.group() for m in self._regex.finditer(text, timeout=limit)]
        except TimeoutError:
            raise ValueError(
                f"the split pattern {_short(self.pattern)} took over {limit:.1f} s on {len(text)} "
                "characters: use possessive quantifiers (++), or pattern=gpt4"
            ) from None
        if sum(map(len, found)) != len(text):
            raise ValueError(
                f"the split pattern {_short(self.pattern)} leaves out part of the text "
                f"(first seen in {_short(text)}): end it with |[\\s\\S] to match everything"
            )
        return [chunk for chunk in found if chunk]

    def pieces(self, text: str) -> list[str]:
        """The text in pieces that split by themselves as they do in it: it is much faster to look
        such a piece up than to find its chunks.
        """
        return _PIECE.findall(text) if self.safe else [text]

    def safe_cut(self, text: str, at: int) -> int:
        """First safe place to cut at or after `at`, or len(text): the parts split as the whole
        does.
        """
        match = _FIRST_CUT.search(text, max(at - 1, 0)) if self.safe else None
        return match.end() if match else len(text)

    def last_safe_cut(self, text: str) -> int:
        """Last safe place to cut, or 0. Text may still be appended."""
        match = _LAST_CUT.search(text) if self.safe else None
        return match.end() if match else 0

    def starts(self, classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Where each chunk starts, ascending, from the arrays of `classify`; only for known
        patterns.

        Every END inside comes out as a chunk of its own.
        """
        find = _gpt2_starts if self.name == "gpt2" else _gpt4_starts
        return np.flatnonzero(find(classes, codes))


def _is_safe(pattern: str) -> bool:
    """Whether the pattern is a choice of _SAFE_PARTS."""
    while pattern not in _SAFE_PARTS:
        part = next((p for p in _SAFE_PARTS if pattern.startswith(p + "|")), None)
        if part is None:
            return False
        pattern = pattern[len(part) + 1 :]
    return True


def find_chunks(
    splitter: Splitter, texts: list[str], raw: list[bytes]
) -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray]:
    """The chunks of all texts: one byte string, start and length of each chunk in it, and per text
    its first chunk.

    The last array has len(texts) + 1 entries, from 0 to the number of chunks. `raw` is the texts in
    UTF-8.
    """
    joined, data = "\0".join(texts), b"\0".join(raw)
    classes, codes = classify(joined)
    border = np.cumsum([len(text) + 1 for text in texts])[:-1] - 1  # (texts - 1,) where a text ends
    classes[border + 2] = END
    start = splitter.starts(classes, codes)  # in characters
    end = np.append(start[1:], len(joined))
    at = np.searchsorted(start, border)  # the borders are chunks too: drop them
    start, end = np.delete(start, at), np.delete(end, at)
    text_of = np.concatenate(([0], at - np.arange(len(at)), [len(start)]))
    if not joined.isascii():
        leads = np.flatnonzero(
            (np.frombuffer(data, np.uint8) & 0xC0) != 0x80
        )  # the first byte of each character
        leads = np.append(leads, len(data))
        start, end = leads[start], leads[end]
    return data, start, end - start, text_of


def classify(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Classes (n + 3,) with two ENDs before and one after the text, and code points (n + 3,), as
    uint8 or uint32.
    """
    if text.isascii():
        raw = ("\0\0" + text + "\0").encode("ascii")
        classes = np.frombuffer(bytearray(raw.translate(_ascii_classes())), np.uint8)
        codes = np.frombuffer(raw, np.uint8)
    else:
        codes = np.frombuffer(("\0\0" + text + "\0").encode("utf-32-le"), np.uint32)
        table = _unicode_classes()
        classes = table[codes]
        if len(new := codes[classes == UNSEEN]):
            _learn_classes(table, sorted(set(new.tolist())))
            classes = table[codes]
    classes[:2] = classes[-1] = END
    return classes, codes


@functools.cache
def _unicode_classes() -> np.ndarray:
    """Class of every code point, uint8 (0x110000,), UNSEEN until a text holds it."""
    return np.full(0x110000, UNSEEN, np.uint8)


def _learn_classes(table: np.ndarray, points: list[int]) -> None:
    """Enter the classes of these code points as `regex` sees them."""
    text = "".join(map(chr, points))
    classes = np.full(len(points), OTHER, np.uint8)
    for pattern, value in (
        (r"\p{L}+", LETTER),
        (r"\p{N}+", DIGIT),
        (r"\s+", WS),
        (r"[\r\n]+", NL),
        (" ", SP),
    ):
        for match in regex.finditer(pattern, text):
            classes[match.start() : match.end()] = value
    table[points] = classes


@functools.cache
def _ascii_classes() -> bytes:
    table = bytearray([OTHER]) * 256
    for code in range(128):
        char = chr(code)
        if char in "\r\n":
            table[code] = NL
        elif char == " ":
            table[code] = SP
        elif char in "\t\v\f":
            table[code] = WS
        elif char.isdigit():
            table[code] = DIGIT
        elif char.isalpha():
            table[code] = LETTER
    return bytes(table)


def _gpt2_starts(classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Boundaries (n,) of GPT-2's pattern: a run takes the space before it; white space leaves its
    last one.
    """
    before, here, after = classes[1:-2], classes[2:-1], classes[3:]  # (n,) each
    is_space = here >= WS
    after_space = before >= WS
    start = before != here
    start &= ~is_space
    start &= before != SP
    # Of a run of white space before a word the last character stands apart (or joins the word, if a
    # space).
    start |= is_space & (~after_space | ((after < WS) & (after != END)))
    start |= here == END
    _contractions(start, classes, codes, fold=False)
    return start


def _gpt4_starts(classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Boundaries (n,) of GPT-4's pattern.

    A word takes one character before it that is no letter, digit or line break; other signs take a
    space before and the line breaks after them; digits go by three; white space ends after its last
    line break, and what is left of it keeps its last character for what follows.
    """
    before2, before, here, after = (
        classes[:-3],
        classes[1:-2],
        classes[2:-1],
        classes[3:],
    )  # (n,) each
    spaced_or_many = (before2 == OTHER) | (
        before2 == SP
    )  # then a sign belongs to the signs, not to the word
    start = (here == LETTER) & (
        (before <= DIGIT) | (before == NL) | ((before == OTHER) & spaced_or_many)
    )
    start &= ~((here == LETTER) & (before == LETTER))
    digit = here == DIGIT
    start |= digit & (before != DIGIT)
    start |= (here == OTHER) & (before != OTHER) & (before != SP)
    blank = (here == SP) | (here == WS)
    start |= blank & ((before <= OTHER) | ((after != END) & (after <= OTHER)))
    start |= (here == NL) & (before <= DIGIT)
    start |= here == END
    after_break = np.flatnonzero(blank & (before == NL))
    if len(after_break):
        start[after_break[_ends_breaks(after_break, classes, blank)]] = True
    _digits_by_three(start, digit, classes)
    _contractions(start, classes, codes, fold=True)
    return start


def _ends_breaks(after_break: np.ndarray, classes: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """Which blanks that follow a line break start a chunk.

    Those where no other line break comes in the same run of white space, and those whose line
    breaks belong to signs before them.
    """
    here = classes[2:-1]
    broken = (here[1:] == NL) & blank[:-1]  # a blank just before a line break: rare
    if not broken.any():
        return np.ones(len(after_break), bool)
    inked = np.cumsum(~blank)  # characters up to here that are no blanks
    breaks = np.flatnonzero(here == NL)
    next_break = np.searchsorted(breaks, after_break)
    has_next = next_break < len(breaks)
    position = breaks[np.minimum(next_break, len(breaks) - 1)]
    last = ~has_next | (inked[position] - inked[after_break] != 1)
    first_breaks = breaks[classes[1:-2][breaks] != NL]  # first of each run of line breaks
    run = first_breaks[np.searchsorted(first_breaks, after_break) - 1]
    return last | (classes[1:-2][run] == OTHER)


def _digits_by_three(start: np.ndarray, digit: np.ndarray, classes: np.ndarray) -> None:
    if len(digit) < 4:
        return
    fourth = digit[3:] & digit[2:-1] & digit[1:-2] & digit[:-3]
    if not fourth.any():
        return
    at = np.flatnonzero(digit)
    first = at[classes[1:-2][at] != DIGIT]
    offset = at - first[np.searchsorted(first, at, side="right") - 1]
    start[at[offset % 3 == 0]] = True


def _contractions(start: np.ndarray, classes: np.ndarray, codes: np.ndarray, fold: bool) -> None:
    """Join 's 'll and the like where an apostrophe starts a chunk and stands alone before a
    letter.
    """
    code = codes[2:-1]
    before, after = classes[1:-2], classes[3:]
    at = np.flatnonzero((code == 39) & (after == LETTER) & (before != SP) & (before != OTHER))
    if not len(at):
        return
    kinds = _contraction_kinds(fold)
    first = kinds[codes[at + 3]]
    second = kinds[codes[np.minimum(at + 4, len(codes) - 1)]]
    one = first == 1
    two = ((first == 2) & (second == 2)) | (((first == 3) | (first == 4)) & (second == 5))
    for joined, size in ((at[one], 2), (at[two & ~one], 3)):
        start[joined] = True
        for k in range(1, size):
            start[joined + k] = False
        rest = joined + size
        rest = rest[rest < len(start)]
        start[rest[classes[2:-1][rest] == LETTER]] = True


@functools.cache
def _contraction_kinds(fold: bool) -> np.ndarray:
    """Per code point: 1 for s d m t, 2 for l, 3 for v, 4 for r, 5 for e, else 0; case folded as
    `regex` does.
    """
    kinds = np.zeros(0x110000, np.uint8)
    points = "".join(
        map(chr, range(0x3000))
    )  # every character that folds to an ASCII letter lies below
    for value, letters in enumerate(("[sdmt]", "l", "v", "r", "e"), start=1):
        for match in regex.finditer(f"(?i:{letters})" if fold else letters, points):
            kinds[match.start()] = value
    return kinds


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "...")
