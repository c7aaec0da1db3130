"""A checked study: its ablation, spaces, budget and goals."""
