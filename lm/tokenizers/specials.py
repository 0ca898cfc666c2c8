"""Special tokens in text: which of them a call allows, and where they stand.

resolve_specials({"<|endoftext|>": 256}, "all", ())   # (frozenset({"<|endoftext|>"}), frozenset())
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from lm.tokenizers.text import TextError

Specials = Collection[str] | Literal["all"]


def resolve_specials(
    known: Mapping[str, int], allowed: Specials, disallowed: Specials
) -> tuple[frozenset[str], frozenset[str]]:
    """The allowed and the disallowed specials as sets; `known` maps a tokenizer's specials to ids.

    "all" means every known special when allowed, and every special that is not allowed when
    disallowed. Raises ValueError if an allowed special is not known.
    """
    allowed_set = frozenset(known) if allowed == "all" else frozenset(allowed)
    unknown = allowed_set - known.keys()
    if unknown:
        raise ValueError(f"{min(unknown)!r} is no special token here: there are {sorted(known)}")
    if disallowed == "all":
        disallowed_set = frozenset(known) - allowed_set
    else:
        disallowed_set = frozenset(disallowed) - {""}
    return allowed_set, disallowed_set


def refuse_specials(text: str, disallowed: frozenset[str], n_open: int = 0) -> None:
    """Raise TextError at the first disallowed special in the text.

    One that begins in the last `n_open` characters is left for later: it may be part of a longer
    one, which is not complete.
    """
    if not any(special in text for special in disallowed):
        return
    first = any_of(disallowed).search(text)
    assert first is not None, "one of them is in the text"
    if first.start() >= len(text) - n_open:
        return
    raise TextError(
        f"the text holds the special token {first.group()!r} at offset {{offset}}: "
        "pass it in allowed_special, or disallowed_special=() to encode it as plain text",
        0,
        first.start(),
    )


def any_of(specials: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches any of the specials; of those that overlap, the longest."""
    longest_first = sorted(specials, key=lambda special: (-len(special), special))
    return re.compile("|".join(map(re.escape, longest_first)))
