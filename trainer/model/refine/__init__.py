"""Refinements after the decoder that no loss sees."""
