"""Refinements after the decoder, without weights and not part of the loss."""
