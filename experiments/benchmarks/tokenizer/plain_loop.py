"""The merge loop in plain Python, over unique chunks: what bpe_train.py is measured against.

learn({b"hug": 10, b"pug": 5}, n_merge=2)   # [(117, 103, 256), (104, 256, 257)]
"""

import heapq
import itertools
from collections import defaultdict


def learn(chunk_counts: dict[bytes, int], n_merge: int) -> list[tuple[int, int, int]]:
    """Counts by pair, the chunks that hold it, a heap with lazy refresh; ties to the lowest ids."""
    chunks = [list(chunk) for chunk in chunk_counts]
    weight = list(chunk_counts.values())
    counts: dict[tuple[int, int], int] = defaultdict(int)
    where: dict[tuple[int, int], set[int]] = defaultdict(set)
    for k, chunk in enumerate(chunks):
        for pair in itertools.pairwise(chunk):
            counts[pair] += weight[k]
            where[pair].add(k)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < n_merge:
        negative, pair = heapq.heappop(heap)
        if counts[pair] != -negative:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        new = 256 + len(merges)
        merges.append((*pair, new))
        fresh = set()
        for k in where.pop(pair):
            fresh |= _merge(chunks, k, pair, new, weight[k], counts, where)
        counts[pair] = 0
        for other in fresh:
            heapq.heappush(heap, (-counts[other], other))
    return merges


def _merge(chunks, k, pair, new, weight, counts, where) -> set[tuple[int, int]]:
    """Replace the pair in chunk k; the pairs with the new symbol."""
    old, out, i = chunks[k], [], 0
    while i < len(old):
        if i + 1 < len(old) and old[i] == pair[0] and old[i + 1] == pair[1]:
            out.append(new)
            i += 2
        else:
            out.append(old[i])
            i += 1
    if len(out) == len(old):
        return set()
    for gone in itertools.pairwise(old):
        counts[gone] -= weight
    fresh = set()
    for here in itertools.pairwise(out):
        counts[here] += weight
        where[here].add(k)
        if new in here:
            fresh.add(here)
    chunks[k] = out
    return fresh
