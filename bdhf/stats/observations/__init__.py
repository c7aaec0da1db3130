"""What runs cost or reached, and runs in pairs by their seeds."""
