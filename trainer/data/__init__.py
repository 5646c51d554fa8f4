"""Training data: readers of data sets, generated data, augmentation, stored flow."""
