"""Products with all blocks at once, from cached inputs and output factors."""
