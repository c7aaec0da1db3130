"""The results folder: its writers and claims; `bdhf status`, `show` and `clean`."""
