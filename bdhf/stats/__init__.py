"""Records -> comparisons. Never imports torch."""
