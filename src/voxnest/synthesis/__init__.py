"""Synthetic voices, for demos and tests."""
