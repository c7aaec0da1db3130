"""The outcome of a study: its files, the tuned spec, the comparison on held-out seeds."""
