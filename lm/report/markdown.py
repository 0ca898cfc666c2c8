"""Pieces of Markdown that several results share."""

from collections.abc import Sequence


def row(cells: Sequence[str]) -> str:
    """A row of a table; a | within a cell, which would end it, as a /."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
