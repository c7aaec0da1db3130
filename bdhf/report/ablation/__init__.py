"""Comparisons of an ablation -> its figures and its page."""
