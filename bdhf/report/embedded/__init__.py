"""The records that a page carries."""
