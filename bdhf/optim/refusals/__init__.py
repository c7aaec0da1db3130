"""Refusals of what has no right curvature product, before anything runs."""
