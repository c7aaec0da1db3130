"""A curvature matrix to inspect and to check: products, symmetry, differences, energy."""
