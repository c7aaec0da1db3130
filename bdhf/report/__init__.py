"""Comparisons -> figures and one offline HTML file. Never imports torch."""

from bdhf.report.files import build

__all__ = ["build"]
