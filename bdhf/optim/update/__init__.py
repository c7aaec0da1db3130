"""The parts of an update beside its solver: damping, acceptance, regularization, the step taken."""
