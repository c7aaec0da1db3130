"""A console on which nothing that is told of files of others acts on the terminal.

Every string that is printed, put into a cell or into a title is one line without control
characters; own texts of many lines are printed line by line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from bdhf.text.printable import on_a_line, printable


class PlainConsole(Console):
    """Prints lines as they are, whatever their width; what would act on a terminal is shown."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(soft_wrap=True, highlight=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Turn a string into one line; before the width of a cell is measured."""
        return super().render_str(on_a_line(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Clean also what never was a string here; what moves the cursor is rich's own."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
