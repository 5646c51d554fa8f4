"""Referring video object segmentation on edge devices: a sentence, a camera, a mask on every frame."""

__version__ = "0.1.0"
