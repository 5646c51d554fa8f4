"""Inference backends behind one protocol: ONNX Runtime, OpenVINO and TensorRT."""
