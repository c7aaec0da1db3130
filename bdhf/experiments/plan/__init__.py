"""A spec -> cells: every arm with every seed, with ids, comparisons, costs and limits."""
