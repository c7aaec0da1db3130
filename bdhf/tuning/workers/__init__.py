"""Processes that make trials, and what becomes of the trials of those that died."""
