"""Slow, obvious byte-pair encoding: the judge of lm.tokenizers.

train(["hug", "pug"], n_merge=1, split=lambda t: [t])   # [(117, 103, 256)]
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence


def train(
    documents: Iterable[str],
    n_merge: int,
    split: Callable[[str], list[str]],
    tie_break: str = "first-pair",
) -> list[tuple[int, int, int]]:
    """Count all pairs of neighbours, merge the commonest everywhere, start again; (left, right,
    new) in order.
    """
    chunks = [list(chunk.encode()) for document in documents for chunk in split(document)]
    token = {i: bytes([i]) for i in range(256)}
    merges = []
    for new in range(256, 256 + n_merge):
        counts: dict[tuple[int, int], int] = {}
        for chunk in chunks:
            for pair in itertools.pairwise(chunk):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        best = max(counts.values())
        tied = [pair for pair, count in counts.items() if count == best]
        if tie_break == "first-pair":
            pair = min(tied)
        else:
            pair = max(tied, key=lambda p: (token[p[0]], token[p[1]]))
        merges.append((*pair, new))
        token[new] = token[pair[0]] + token[pair[1]]
        chunks = [_replace(chunk, pair, new) for chunk in chunks]
    return merges


def encode(chunk: bytes, merges: list[tuple[int, int, int]]) -> list[int]:
    """Apply each merge in turn to the whole chunk."""
    ids = list(chunk)
    for left, right, new in merges:
        ids = _replace(ids, (left, right), new)
    return ids


def encode_by_rank(
    ids: Sequence[int], ranked: Mapping[tuple[int, int], tuple[int, int]]
) -> list[int]:
    """Merge the pair of lowest rank, the leftmost first, until none is left; `ranked` has the rank
    and the new id of each pair.
    """
    ids = list(ids)
    while True:
        found = [
            (*ranked[pair], at) for at, pair in enumerate(itertools.pairwise(ids)) if pair in ranked
        ]
        if not found:
            return ids
        _, new, at = min(found)
        ids[at : at + 2] = [new]


def _replace(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    out, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out
