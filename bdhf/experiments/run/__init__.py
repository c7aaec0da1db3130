"""One run: the training loop, its checkpoints, its random streams, its failures."""
