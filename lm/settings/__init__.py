"""How settings are declared; `reading` and `yaml_files` read and write them."""

from lm.settings.declare import (
    MISSING,
    MOST,
    Affects,
    Part,
    Settings,
    at_least,
    one_of,
    or_word,
    setting,
    within,
    zero_or,
)

__all__ = [
    "MISSING",
    "MOST",
    "Affects",
    "Part",
    "Settings",
    "at_least",
    "one_of",
    "or_word",
    "setting",
    "within",
    "zero_or",
]
