"""Products by propagation, one sweep per block: J v, H, Jᵀw."""
