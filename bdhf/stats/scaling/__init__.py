"""Batch scaling, and the critical batch size."""
