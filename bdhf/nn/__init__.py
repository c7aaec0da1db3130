"""Modules that torch lacks; known to `optim` and `problems`, imports torch only."""
