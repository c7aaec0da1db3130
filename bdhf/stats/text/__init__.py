"""Results as sentences, as tables on a terminal and as LaTeX."""
