"""What has no right curvature product, said before anything runs."""
