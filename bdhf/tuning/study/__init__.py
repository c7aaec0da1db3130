"""A study as it was checked: its ablation, spaces, budget and goals."""
