"""Caveats that a reader needs to interpret a comparison."""
