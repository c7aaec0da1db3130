"""Factors A_b of blocks, G_bb = A_bᵀA_b, as sums over the sites of a model; never A as a whole."""

#: Bytes of the cotangents, of the columns of A, and of a temporary that are alive at a time.
HELD_BYTES = 2**28
