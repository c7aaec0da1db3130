"""The next trial: samplers, pruners, and the trials that they see."""
