"""Losses and the training objective."""
