"""Where runs are made: git, and environments that can change the numbers of a run."""
