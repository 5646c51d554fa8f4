"""Agreement of a backend with PyTorch: the stored record and its verification."""
