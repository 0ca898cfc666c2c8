"""A console of rich on which no text can drive the terminal: tables, colours and bars go here.

Console().print(Text(name))     # a stranger's name without its control characters

Plain lines go through streams.print_line.
"""

from collections.abc import Iterable

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from lm.system.text import printable


class Console(rich.console.Console):
    """Replaces, in every text that it prints, what could drive the terminal or forge a line."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:  # rich's own: the cursor of a live bar
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
