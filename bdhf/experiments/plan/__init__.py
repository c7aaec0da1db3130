"""A spec -> cells: every arm with every seed, its id, its comparisons, its costs and limits."""
