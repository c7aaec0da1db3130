"""The parts of an update without its solver: damping, acceptance, regularization, steps."""
