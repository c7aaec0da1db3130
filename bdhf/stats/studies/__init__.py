"""Values of trials, and whether a verdict depends on their number."""
