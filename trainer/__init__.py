"""PyTorch: model, data, training, evaluation. Makes a checkpoint."""
