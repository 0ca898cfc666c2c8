"""Text for a terminal."""

import re

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline


def printable(text: str) -> str:
    """The text with U+FFFD for each control character, which could drive the terminal."""
    return CONTROL.sub("\ufffd", text)
