"""Observers of runs: progress on a terminal, and trackers such as TensorBoard and MLflow."""
