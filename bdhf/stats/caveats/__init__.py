"""What a reader must know beside a comparison's number."""
