"""Optical flow on a stream: policy, frame budget, scene changes."""
