"""Where the chunks of GPT-2's and GPT-4's patterns start, for a whole text at once with numpy.

    classes, codes = classify("a 12"); gpt4_starts(classes, codes)   # [True, True, True, False]

What decides a boundary is the class of a character (letter, digit, white space, ...), those of its
neighbours, and a few run lengths. Each function takes the two arrays (n + 3,) of `classify` and
returns bool (n,): whether a chunk starts at the character. Every END inside starts one of its own.
"""

import functools

import numpy as np
import regex

from lm.tokenizers.char_classes import DIGIT, END, LETTER, NL, OTHER, SP, WS


def gpt2_starts(classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Boundaries (n,) of GPT-2's pattern.

    A run of letters, digits or other signs takes the space before it; white space leaves its last
    character to what follows.
    """
    before = classes[1:-2]  # (n,)
    here = classes[2:-1]  # (n,)
    after = classes[3:]  # (n,)
    is_space = here >= WS
    after_space = before >= WS
    start = before != here
    start &= ~is_space
    start &= before != SP
    # Of a run of white space before a word the last character starts a chunk: of its own, or with
    # the word if it is a space.
    start |= is_space & (~after_space | ((after < WS) & (after != END)))
    start |= here == END
    _contractions(start, classes, codes, fold=False)
    return start


def gpt4_starts(classes: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Boundaries (n,) of GPT-4's pattern.

    A word takes one character before it that is no letter, digit or line break; other signs take a
    space before and the line breaks after them; digits go by three; white space ends after its last
    line break, and what is left of it keeps its last character for what follows.
    """
    before2 = classes[:-3]  # (n,)
    before = classes[1:-2]  # (n,)
    here = classes[2:-1]  # (n,)
    after = classes[3:]  # (n,)
    # A sign after another sign or a space belongs to the signs, not to the word that follows.
    spaced_or_many = (before2 == OTHER) | (before2 == SP)
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
        starts_chunk = _starts_after_break(after_break, classes, blank)
        start[after_break[starts_chunk]] = True
    _digits_by_three(start, digit, classes)
    _contractions(start, classes, codes, fold=True)
    return start


def _starts_after_break(
    after_break: np.ndarray, classes: np.ndarray, blank: np.ndarray
) -> np.ndarray:
    """Whether each blank that follows a line break starts a chunk, bool (len(after_break),).

    It does where no other line break comes in the same run of white space, and where the line
    breaks before it belong to signs.
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
    """Enter into `start` every third digit of a run."""
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
    """Enter into `start` the contractions, such as 's and 'll, where an apostrophe stands alone
    before a letter; `fold` finds capitals too.
    """
    code = codes[2:-1]
    before = classes[1:-2]
    after = classes[3:]
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
    """Per code point, uint8 (0x110000,): 1 for s d m t, 2 for l, 3 for v, 4 for r, 5 for e, else 0;
    `fold` takes letters for each other where `regex` does if it ignores case.
    """
    kinds = np.zeros(0x110000, np.uint8)
    # Every character that folds to an ASCII letter lies below U+3000.
    points = "".join(map(chr, range(0x3000)))
    for value, letters in enumerate(("[sdmt]", "l", "v", "r", "e"), start=1):
        pattern = f"(?i:{letters})" if fold else letters
        for match in regex.finditer(pattern, points):
            kinds[match.start()] = value
    return kinds
