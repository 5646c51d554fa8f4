"""TensorRT and TensorRT-RTX: engine building, the engine cache, CUDA memory and CUDA graphs."""
