"""A curvature matrix to look at and to check: products, symmetry, differences, energy."""
