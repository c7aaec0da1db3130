"""The storage of trials: a journal file, or a database."""
