"""Products by propagation, a sweep a block: J v, H, Jᵀw."""
