"""YAML -> a spec that is checked and complete."""
