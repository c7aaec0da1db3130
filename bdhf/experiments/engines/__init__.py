"""Where runs execute. One file each."""
