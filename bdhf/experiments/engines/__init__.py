"""Where runs execute: worker processes of this machine."""
