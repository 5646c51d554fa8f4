"""The synthetic camera: rendered scenes with exact masks, exact flow and true expressions."""
