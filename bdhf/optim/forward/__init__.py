"""The forward passes of a model, and the loss as a function of its trainable parameters."""
