"""One figure a file: tidy table in, matplotlib Figure out."""
