"""Compare a page with the records that it carries, and with a results folder."""
