"""What the next trial is: samplers, pruners, and which trials they see."""
