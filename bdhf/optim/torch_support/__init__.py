"""What the method needs of torch itself: operators seen and counted, graphs, precision, layouts."""
