"""Distributed training and its clean interruption."""
