"""The class of each character of a text, which is what decides where chunks start.

    classes, codes = classify("a 1")   # [END, END, LETTER, SP, DIGIT, END] and the code points

The classes of characters beyond ASCII are read off `regex` itself, so both agree by construction on
every Unicode version.
"""

import functools

import numpy as np
import regex

END = 0  # the border of a text
LETTER = 1
DIGIT = 2
OTHER = 3
WS = 4  # white space that is neither the space itself nor a line break
SP = 5  # the space itself
NL = 6
UNSEEN = 7  # a code point that no text held yet


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
        new = codes[classes == UNSEEN]
        if len(new):
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
    # Line breaks and the space are white space too: they come after it.
    class_of = {r"\p{L}+": LETTER, r"\p{N}+": DIGIT, r"\s+": WS, r"[\r\n]+": NL, " ": SP}
    for pattern, value in class_of.items():
        for match in regex.finditer(pattern, text):
            classes[match.start() : match.end()] = value
    table[points] = classes


@functools.cache
def _ascii_classes() -> bytes:
    """Class of every byte, for bytes.translate."""
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
