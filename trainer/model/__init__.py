"""The HINet network and its configuration."""
