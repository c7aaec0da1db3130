"""Processes that make trials, and the recovery of trials whose process was killed."""
