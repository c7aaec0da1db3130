"""Texts for readers: numbers, and untrusted strings."""
