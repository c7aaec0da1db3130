"""Trackers: observers that copy what happens into TensorBoard, MLflow and the like."""
