"""Files that exist whole or not at all: names, owners, checksums, versions."""
