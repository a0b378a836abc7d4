"""Predictions of other programs, read from tables."""
