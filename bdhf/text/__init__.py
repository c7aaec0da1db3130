"""Texts for human readers: numbers, and what others wrote."""
