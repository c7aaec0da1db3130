"""What `bdhf verify` makes again: the plan, and single runs."""
