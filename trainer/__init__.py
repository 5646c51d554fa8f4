"""Training in PyTorch: model, data, training loop, evaluation."""
