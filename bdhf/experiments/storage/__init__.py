"""The results folder: who writes and claims it; `bdhf status`, `show` and `clean`."""
