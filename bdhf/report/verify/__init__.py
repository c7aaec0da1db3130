"""A page against the records that it carries, and against a results folder."""
