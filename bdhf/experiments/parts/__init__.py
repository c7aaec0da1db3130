"""Names and mappings of a spec -> objects: the tables, and the parts that a user brings."""
