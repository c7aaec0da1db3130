"""Which module a wrong or missing derivative comes from; what couples the samples of a batch."""
