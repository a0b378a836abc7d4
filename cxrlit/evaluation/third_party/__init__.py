"""Predictions and networks of other programs."""
