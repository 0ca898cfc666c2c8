"""Encode text that comes in chunks, wherever it was cut, with little of it in memory.

list(encode_stream(tokenizer, ["some te", "xt"]))   # the ids of "some text"
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from lm.tokenizers.specials import Specials, any_of, refuse_specials, resolve_specials
from lm.tokenizers.text import TextError

if TYPE_CHECKING:
    from lm.tokenizers.base import Tokenizer

WARN_LEN = 1 << 24  # characters that a stream may hold back without a warning
_FIRST_WAIT = 1 << 12  # characters collected before text is looked at again


def encode_stream(
    tokenizer: Tokenizer,
    chunks: Iterable[str],
    allowed_special: Specials = frozenset(),
    disallowed_special: Specials = "all",
) -> Iterator[int]:
    """The ids that `tokenizer.encode` gives for the joined chunks.

    Raises the errors of `encode`, with offsets from the start of the first chunk. Warns where
    WARN_LEN characters are held back because the tokenizer knows no place to cut them.
    """
    allowed, disallowed = resolve_specials(tokenizer.specials, allowed_special, disallowed_special)
    special = any_of(allowed) if allowed else None
    longest = max(map(len, allowed), default=1)
    n_open = max(map(len, disallowed), default=1) - 1  # of the longest that may not be complete
    before = ""  # the last n_open characters whose ids are out: a disallowed one may begin there
    pending: list[str] = []
    n_pending = 0  # characters in `pending`
    n_wait = 1  # characters to collect before looking for a place to cut
    n_done = 0  # characters whose ids are out
    for chunk in chunks:
        pending.append(chunk)
        n_pending += len(chunk)
        if n_pending < n_wait:
            continue
        text = "".join(pending)
        _refuse(before + text, disallowed, n_done - len(before), n_open)
        cut = 0  # the text up to here is encoded
        limit = len(text)
        if special is not None:
            limit = max(len(text) - longest + 1, 0)  # a special from here on may not be complete
            for match in special.finditer(text):
                if match.start() >= limit:
                    break
                part = text[cut : match.end()]
                yield from encode_at(n_done + cut, tokenizer.encode, part, allowed, ())
                cut = match.end()
        end = max(limit, cut)
        rest = tokenizer.last_safe_cut(text[cut:end])
        yield from encode_at(n_done + cut, tokenizer.encode_ordinary, text[cut : cut + rest])
        cut += rest
        if n_open:
            before = (before + text[:cut])[-n_open:]
        n_done += cut
        pending = [text[cut:]]
        n_pending = len(text) - cut
        if n_pending > WARN_LEN:
            warnings.warn(
                f"{n_pending:,} characters are in memory and go on growing: {tokenizer.name} knows "
                "no place to cut this text at; encode documents of it, or use pattern=gpt4",
                stacklevel=2,
            )
        # Wait until the text doubled, so that an endless word costs linear time.
        n_wait = max(2 * n_pending, _FIRST_WAIT)
    text = "".join(pending)
    _refuse(before + text, disallowed, n_done - len(before))
    yield from encode_at(n_done, tokenizer.encode, text, allowed, ())


def _refuse(text: str, disallowed: frozenset[str], start: int, n_open: int = 0) -> None:
    """refuse_specials for a text that begins at offset `start` of the caller's."""
    try:
        refuse_specials(text, disallowed, n_open)
    except TextError as error:
        raise error.shifted(start) from None


def encode_at(start: int, encode: Callable[..., list[int]], text: str, *args: object) -> list[int]:
    """encode(text, *args), where `text` begins at offset `start` of the caller's: errors give
    offsets in the caller's.
    """
    try:
        return encode(text, *args)
    except TextError as error:
        raise error.shifted(start) from None
