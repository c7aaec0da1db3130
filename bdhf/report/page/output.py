"""A rendered report: one HTML file that needs no network, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bdhf.records import write_atomically


@dataclass(frozen=True)
class RenderedReport:
    """The page, and the figures of its folder by file name."""

    html: str
    figures: Mapping[str, bytes]


def write_report(folder: Path, report: RenderedReport) -> Path:
    """Write report.html and figures/*.svg, each whole or not at all; the path of the page."""
    for name, content in report.figures.items():
        write_atomically(folder / "figures" / name, content)
    path = folder / "report.html"
    write_atomically(path, report.html.encode())
    return path
