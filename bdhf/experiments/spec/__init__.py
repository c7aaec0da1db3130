"""YAML -> a checked and complete spec."""
