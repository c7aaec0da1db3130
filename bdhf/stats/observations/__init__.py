"""Costs and losses of runs, and their pairs by seed."""
