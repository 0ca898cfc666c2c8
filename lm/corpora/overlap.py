"""How much of a text also stands, token for token, in the text that a model is trained on.

    copied(train, val, counts)      # Copied(share=0.135, span=12): of every 1,000 spans of 12
                                    # tokens in val 135 stand in train

A score on a text that was learned by heart says little of new text. Windows of a fixed length are
how leaks are found since GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C: 13 words).
"""

import functools
import math

import numpy as np

from lm.system.schemas import Copied, TokenCounts

RULES = 1  # raise it when the code below comes to give another share
NOTABLE = 0.02  # a share above which a score is said to rest on it
SPAN_TOKENS = 12
SPAN_BYTES = 30  # at least: twelve letters stand in any text, as "of the model"
MAX_SPANS = 1 << 22  # of the judged text; of a longer one every second, third, ... is looked up
CHUNK = 1 << 20  # training tokens that are hashed at a time

_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))  # their product is 1 modulo 2^64
_FILTER_BITS = 26  # of a first look, which spares most of the others


def copied(train: np.ndarray, judged: np.ndarray, counts: TokenCounts) -> Copied | None:
    """How much of `judged` (n,) stands in `train` (m,), both ids of one tokenizer.

    `counts`, of that text or of a part of it, say how long its tokens are. None if it is shorter
    than a span.
    """
    span = span_length(counts.n_bytes / max(1, counts.n_tokens))
    if len(judged) < span:
        return None
    return Copied(share_copied(train, judged, span), span)


def span_length(mean_bytes: float) -> int:
    """Tokens in a span, for tokens of so many bytes on average."""
    return max(SPAN_TOKENS, math.ceil(SPAN_BYTES / max(mean_bytes, 1e-9)))


def share_copied(train: np.ndarray, judged: np.ndarray, span: int) -> float:
    """The share of the spans of `judged` (n,) that stand in `train` (m,), from 0 to 1.

    Spans are compared by a hash of 64 bits. Memory grows with neither. NaN if `judged` is shorter
    than a span.
    """
    if len(judged) < span:
        return math.nan
    every = -(-(len(judged) - span + 1) // MAX_SPANS)
    piece = max(CHUNK // every, 1) * every  # so that each piece begins with a span to look up
    sampled = [
        _hashes(judged[start : start + piece + span - 1], span)[::every].copy()
        for start in range(0, len(judged) - span + 1, piece)
    ]
    wanted, counts = np.unique(np.concatenate(sampled), return_counts=True)
    may_be_wanted = np.zeros(1 << _FILTER_BITS, bool)
    may_be_wanted[_slots(wanted)] = True
    is_found = np.zeros(len(wanted), bool)
    for start in range(0, len(train) - span + 1, CHUNK):
        hashes = _hashes(train[start : start + CHUNK + span - 1], span)
        hashes = np.sort(hashes[may_be_wanted[_slots(hashes)]])  # in order they are found faster
        places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        is_found[places[wanted[places] == hashes]] = True
    return float(counts[is_found].sum() / counts.sum())


def in_words(copied: Copied, judged: str) -> str:
    """The share for a person; `judged` names the text that is scored."""
    return (
        f"{copied.share:.1%} of all runs of {copied.span} tokens in {judged} stand in the training "
        "text, too"
    )


def _slots(hashes: np.ndarray) -> np.ndarray:
    return (hashes >> np.uint64(64 - _FILTER_BITS)).astype(np.intp)


def _hashes(ids: np.ndarray, span: int) -> np.ndarray:
    """A hash of each span of `ids`, uint64 (len(ids) - span + 1,)."""
    # Mixed before they are summed: a plain polynomial in small numbers has collisions.
    mixed = (ids.astype(np.uint64) + np.uint64(1)) * _BASE
    mixed ^= mixed >> np.uint64(29)
    # A span's polynomial is the difference of two sums from the start of `ids`, so that a long
    # span costs no more than a short one; an odd base has an inverse modulo 2^64.
    mixed *= _powers(_INVERSE, len(ids))
    sums = np.concatenate(([np.uint64(0)], np.cumsum(mixed)))
    hashes = sums[span:] - sums[:-span]
    hashes *= _powers(_BASE, len(ids))[span - 1 :]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _BASE
    return hashes


@functools.lru_cache(4)  # those of a whole chunk and of the last one
def _powers(base: np.uint64, n: int) -> np.ndarray:
    """base^0 to base^(n - 1) modulo 2^64, uint64 (n,)."""
    factors = np.full(n, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)
