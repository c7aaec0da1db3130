"""A check that every arm can run, before anything is planned or claimed."""
