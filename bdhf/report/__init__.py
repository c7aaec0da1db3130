"""Comparisons -> figures and one offline HTML file. Never imports torch."""
