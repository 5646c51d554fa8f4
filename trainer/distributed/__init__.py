"""Training in several processes, and its clean interruption."""
