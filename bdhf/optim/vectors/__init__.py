"""Parameters as flat vectors and as block matrices."""
