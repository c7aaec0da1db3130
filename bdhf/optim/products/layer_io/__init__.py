"""Products with all blocks at once, out of cached inputs and output factors."""
