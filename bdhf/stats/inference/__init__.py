"""Tests and intervals of paired differences, and what they can decide."""
