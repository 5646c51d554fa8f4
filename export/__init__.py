"""Export of a checkpoint: ONNX graphs, parity proofs, and the bundle that the runtimes open."""
