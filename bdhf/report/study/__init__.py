"""The files of a study -> its figures and its page."""
