"""Fewer points of a curve, so that a page's size does not grow with the length of a run.

thinning.with_extremes(points, 120)     # the spike at one step of a million is among them
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
P = TypeVar("P", bound=tuple[float, ...])


def evenly(items: Sequence[T], n: int) -> list[T]:
    """About n of the items at equal distances, and the last one."""
    stride = max(1, -(-len(items) // n))
    kept = list(items[::stride])
    if items and (len(items) - 1) % stride:
        kept.append(items[-1])
    return kept


def with_extremes(points: Sequence[P], n: int) -> list[P]:
    """At most n >= 4 points of a curve, the value last in each: the first, the last, and of each
    stretch of equally many points the lowest and the highest.
    """
    if len(points) <= n:
        return list(points)
    n_stretches = (n - 2) // 2
    kept = {0, len(points) - 1}
    for i in range(n_stretches):
        stretch = range(i * len(points) // n_stretches, (i + 1) * len(points) // n_stretches)
        kept.add(min(stretch, key=lambda place: points[place][-1]))
        kept.add(max(stretch, key=lambda place: points[place][-1]))
    return [points[place] for place in sorted(kept)]
