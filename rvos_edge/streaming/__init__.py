"""Sources, sinks, the overlay and the streaming loop."""
