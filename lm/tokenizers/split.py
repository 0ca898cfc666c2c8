"""Cut text into the chunks of a split pattern: GPT-2's and GPT-4's with numpy, any other with
`regex`.

    splitter = Splitter("gpt4"); splitter.chunks("I'm 12345!")   # ["I", "'m", " ", "123", "45",
    "!"]
"""

import re

import numpy as np
import regex

from lm.tokenizers.char_classes import END, classify
from lm.tokenizers.patterns import PATTERNS, Starts, has_safe_cuts, name_of

_SAFE_CUT = r"(?:\S(?= )|\S\n(?=[^\s/]))"
_FIRST_CUT = regex.compile(_SAFE_CUT)
_LAST_CUT = regex.compile(f"(?r){_SAFE_CUT}")
# The text between such cuts, but for some that are left out. `re` is far faster than `regex`, and
# its \s holds all that is \s there.
_PIECE = re.compile(r"\s*\S+(?:\n(?=[^\s/])|(?:(?! )\s+\S+)*(?:(?! )\s+\Z)?)|\s+")
# The time limit for patterns nobody has proved, of the processor.
_SECONDS = 2.0
_SECONDS_PER_CHAR = 2e-5
# On (?:|x){1000000} `regex` ends the process, and x{1000000000} takes gigabytes.
_LONG_REPEAT = re.compile(r"\{\s*(?:\d*\s*,)?\s*\d{4}")
# `regex` writes a counted repeat out, and each + around a group twice: 25 of those around each
# other, or (?:a{999}){999}, take gigabytes before a text is looked at.
_MAX_PARTS = 100_000
_PARTS = re.compile(
    r"(?P<open>\(\??)|(?P<close>\))"
    r"|(?P<repeat>[*+?]|\{\s*(?P<low>\d*)\s*(?P<comma>,?)\s*(?P<high>\d*)\s*\})"
    r"|\\[pP]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.",
    re.DOTALL,
)
_PROBES = ("a b\n 12 .'s \u00e9\u4e2d", "x" * 40, " " * 40, "1" * 40, "(" * 40 + "a")


class Splitter:
    """One split pattern: its chunks, and places where it is safe to cut.

    `starts` finds all boundaries of a text at once; it is None for a pattern that has no such
    function, whose chunks come from `chunks`.
    """

    def __init__(self, pattern: str):
        if not isinstance(pattern, str) or not pattern or len(pattern) > 10_000:
            raise ValueError(
                "the split pattern must be a regular expression of 1 to 10,000 characters"
            )
        if _LONG_REPEAT.search(pattern):
            raise ValueError(
                f"the split pattern {_short(pattern)} repeats a part 1,000 times or more, which "
                "`regex` may not survive: use + or *, or a smaller number"
            )
        if (n_parts := _parts_written_out(pattern)) > _MAX_PARTS:
            raise ValueError(
                f"the split pattern {_short(pattern)} has {n_parts:.0e} parts with its repeats "
                f"written out, and {_MAX_PARTS:,} are allowed: repeat fewer inside of each other"
            )
        self.name = name_of(pattern)
        self.pattern = pattern
        self.starts: Starts | None = None
        if self.name:
            self.pattern = PATTERNS[self.name].regex
            self.starts = PATTERNS[self.name].starts
        try:
            self._regex = regex.compile(self.pattern)
        except (regex.error, RecursionError, OverflowError) as error:
            raise ValueError(
                f"the split pattern {_short(pattern)} does not compile: {error}"
            ) from None
        self.has_safe_cuts = has_safe_cuts(self.pattern)
        if self.starts is None:
            for probe in _PROBES:
                self._checked_chunks(probe, limit=0.3)

    def chunks(self, text: str) -> list[str]:
        """The chunks in order; they join to the text. Raises ValueError where a custom pattern
        skips text or takes too long.
        """
        if self.starts is not None:
            return self._regex.findall(text)
        return self._checked_chunks(text, _SECONDS + _SECONDS_PER_CHAR * len(text))

    def _checked_chunks(self, text: str, limit: float) -> list[str]:
        """The chunks, found in at most `limit` seconds and seen to join to the text."""
        try:
            found = [match.group() for match in self._regex.finditer(text, timeout=limit)]
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
        if not self.has_safe_cuts:
            return [text]
        return _PIECE.findall(text)

    def safe_cut(self, text: str, at: int, until: int | None = None) -> int:
        """First safe place to cut at or after `at`, or len(text): the parts split as the whole
        does. With `until` the place is looked for up to there, and is `until` if there is none.
        """
        end = len(text) if until is None else min(until, len(text))
        match = _FIRST_CUT.search(text, max(at - 1, 0), end) if self.has_safe_cuts else None
        return match.end() if match else end

    def last_safe_cut(self, text: str) -> int:
        """Last safe place to cut, or 0. Text may still be appended."""
        match = _LAST_CUT.search(text) if self.has_safe_cuts else None
        return match.end() if match else 0


def find_chunks(
    starts: Starts, texts: list[str], raw: list[bytes]
) -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray]:
    """The chunks of all texts: one byte string, start and length of each chunk in it, and per text
    its first chunk.

    The last array has len(texts) + 1 entries, from 0 to the number of chunks. `raw` is the texts in
    UTF-8.
    """
    joined = "\0".join(texts)
    data = b"\0".join(raw)
    classes, codes = classify(joined)
    border = np.cumsum([len(text) + 1 for text in texts])[:-1] - 1  # (texts - 1,) where a text ends
    classes[border + 2] = END
    start = np.flatnonzero(starts(classes, codes))  # in characters
    end = np.append(start[1:], len(joined))
    at = np.searchsorted(start, border)  # the borders are chunks too: drop them
    if len(at):
        start = np.delete(start, at)
        end = np.delete(end, at)
    text_of = np.concatenate(([0], at - np.arange(len(at)), [len(start)]))
    if not joined.isascii():
        is_lead = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80  # the first byte of a character
        leads = np.append(np.flatnonzero(is_lead), len(data))
        start = leads[start]
        end = leads[end]
    return data, start, end - start, text_of


def _parts_written_out(pattern: str) -> float:
    """How many characters and classes a pattern has with its repeats written out, about."""
    sizes = [0.0]  # of each group that is open, without its last part
    last = 0.0
    was_repeat = False
    for match in _PARTS.finditer(pattern):
        if match["repeat"]:
            if not was_repeat:  # a second sign, as in ++ and +?, only says how to match
                last *= _times(match)
        elif match["close"] and len(sizes) > 1:
            last += sizes.pop()
        else:
            sizes[-1] += last
            last = 1.0
            if match["open"]:
                sizes.append(0.0)
                last = 0.0
        was_repeat = bool(match["repeat"])
    return sum(sizes) + last


def _times(match: re.Match[str]) -> float:
    """How many copies of a part `regex` makes for a repeat of it."""
    if match["low"] or match["high"]:
        return max(1.0, float(match["low"] or 0) + bool(match["comma"]), float(match["high"] or 0))
    return 2.0


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "...")
