"""Names and mappings of a spec -> objects: the tables, and the parts of users."""
