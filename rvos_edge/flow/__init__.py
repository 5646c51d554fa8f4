"""Optical flow on a stream: policy, frame budget and scene changes."""
