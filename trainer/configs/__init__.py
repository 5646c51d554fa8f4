"""Training configurations shipped with the package."""
