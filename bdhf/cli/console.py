"""A console for untrusted text: no control character reaches the terminal.

Every printed string, cell and title is one line without control characters; texts of several
lines are printed line by line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from bdhf.text.printable import on_a_line, printable


class PlainConsole(Console):
    """Prints lines of any width; shows control characters instead of sending them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(soft_wrap=True, highlight=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Turn a string into one line before the width of a cell is measured."""
        return super().render_str(on_a_line(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Clean text that did not pass `render_str`; control segments come from rich itself."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
