"""What trials were worth, and whether a verdict depends on their number."""
