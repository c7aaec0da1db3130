"""The recorded forward pass: JVP and VJP along it."""
