"""Bundles shipped with the package."""
