"""Performance and convergence over commits, and scripts that print the numbers in the docs."""
