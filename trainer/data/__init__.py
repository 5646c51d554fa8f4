"""Datasets, composition and cached flow."""
