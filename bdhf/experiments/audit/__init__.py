"""The parts of `bdhf verify` that repeat work: the plan, and single runs."""
