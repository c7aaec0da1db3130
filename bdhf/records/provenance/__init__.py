"""Where runs are made: git, and what can change the numbers of a run."""
