"""A page as a reader meets it: its elements, its text, and the rows of its tables."""

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Elements, visible text, and the text of every row of every section's tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[tuple[str, str]] = []
        self.section = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element, and where a section or a row begins."""
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self.section = dict(attrs).get("id") or ""
        if tag == "tr":
            self.rows.append((self.section, ""))

    def handle_data(self, data: str) -> None:
        """Add to the text of the page and of its latest row."""
        self.text += data
        if self.rows:
            section, text = self.rows[-1]
            self.rows[-1] = (section, f"{text} {data}")

    def table(self, section: str) -> list[str]:
        """The text of the rows of a section's table, without its head."""
        return [re.sub(r"\s+", " ", text) for name, text in self.rows if name == section][1:]
