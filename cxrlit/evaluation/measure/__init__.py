"""Metrics, thresholds and curves of a predictions table."""
