"""Training data that is made: sentences from what is known of a frame, and frames put together from parts."""
