"""What a study leaves: its files, the tuned spec, the comparison on held-out seeds."""
