"""Optuna studies: fair budgets of trials for every arm at every batch size."""
