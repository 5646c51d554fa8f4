"""Checkpoint to ONNX graphs to engines to a bundle."""
