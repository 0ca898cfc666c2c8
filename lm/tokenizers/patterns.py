"""The split patterns that have a name, and which patterns leave places where text may be cut.

PATTERNS["gpt4"].regex   # the regular expression
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lm.tokenizers.boundaries import gpt2_starts, gpt4_starts

Starts = Callable[[np.ndarray, np.ndarray], np.ndarray]  # a function such as boundaries.gpt4_starts


@dataclass(frozen=True)
class SplitPattern:
    """A split pattern that has a name. Without `starts`, `regex` finds its chunks."""

    regex: str
    starts: Starts | None = None
    spellings: tuple[str, ...] = ()  # other regular expressions that give the same chunks


# The published patterns. In Python `regex`, \s leaves out U+001C-001F, which `re` counts as white
# space.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4 = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)

# The other spellings are those of tiktoken and of GPT-2's own code. tiktoken 0.14's of cl100k is
# not among them: its \s++$ takes the white space that ends a text whole, with its line breaks.
PATTERNS = {
    "gpt2": SplitPattern(
        regex=GPT2,
        starts=gpt2_starts,
        spellings=(
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        ),
    ),
    "gpt4": SplitPattern(
        regex=GPT4,
        starts=gpt4_starts,
        spellings=(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
    ),
}


def name_of(pattern: str) -> str:
    """The name of a pattern that is given by name or in any of its spellings, else ""."""
    for name, known in PATTERNS.items():
        if pattern in (name, known.regex, *known.spellings):
            return name
    return ""


# Alternatives of published patterns (these two, Llama 3, Qwen, nanochat, o200k) that never match a
# space after a non-space, nor a line break between two non-spaces (but for "/", which o200k takes),
# and look at most one character ahead, for a non-space. In a pattern made of these, text may be cut
# in such places: either side splits by itself. Nothing is known of other patterns.
_NO_LETTER = r"[^\r\n\p{L}\p{N}]"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SAFE_PARTS = (
    # contractions
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d"),
    r"'(?:[sdmt]|ll|ve|re)",
    r"'(?i:[sdmt]|ll|ve|re)",
    _ENDINGS,
    # words
    *(r" ?\p{L}+", r" ?\p{L}++"),
    *(rf"{_NO_LETTER}?\p{{L}}+", rf"{_NO_LETTER}?\p{{L}}++"),
    *(rf"{_NO_LETTER}?+\p{{L}}+", rf"{_NO_LETTER}?+\p{{L}}++"),
    rf"{_NO_LETTER}?{_UPPER}*{_LOWER}+{_ENDINGS}?",
    rf"{_NO_LETTER}?{_UPPER}+{_LOWER}*{_ENDINGS}?",
    # numbers
    *(r"\p{N}", r"\p{N}{1,2}", r"\p{N}{1,3}", r"\p{N}{1,3}+", r" ?\p{N}+", r" ?\p{N}++"),
    # other signs
    *(r" ?[^\s\p{L}\p{N}]+", r" ?[^\s\p{L}\p{N}]++"),
    *(r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]++[\r\n]*"),
    *(r" ?[^\s\p{L}\p{N}]+[\r\n]*+", r" ?[^\s\p{L}\p{N}]++[\r\n]*+"),
    *(r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r" ?[^\s\p{L}\p{N}]++[\r\n/]*"),
    # white space
    *(r"\s*[\r\n]", r"\s*[\r\n]+", r"\s++$", r"\s+(?!\S)", r"\s+", r"\s"),
)


def has_safe_cuts(pattern: str) -> bool:
    """Whether the regular expression is a choice of _SAFE_PARTS, so that text may be cut."""
    rest = pattern
    while rest not in _SAFE_PARTS:
        part = next((part for part in _SAFE_PARTS if rest.startswith(part + "|")), None)
        if part is None:
            return False
        rest = rest[len(part) + 1 :]
    return True
