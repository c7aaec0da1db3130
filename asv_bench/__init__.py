"""Performance and convergence over commits, and scripts that print the figures of the docs."""
