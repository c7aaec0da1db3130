"""Comparisons -> figures and one offline HTML file. Never imports torch."""

from bdhf.report.ablation.build import build

__all__ = ["build"]
