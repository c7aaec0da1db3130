"""YAML -> plan -> runs -> records. No statistics here."""
