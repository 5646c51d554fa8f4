"""Latency, memory, roofline and peers of the runtime."""
