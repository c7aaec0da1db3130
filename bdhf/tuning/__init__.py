"""Optuna studies: the same number of trials for every arm at every batch size."""
