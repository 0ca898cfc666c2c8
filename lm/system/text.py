"""Text for a terminal."""

import re


def printable(text: str) -> str:
    """Text without control characters, which could drive the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)
