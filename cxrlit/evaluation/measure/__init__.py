"""The metrics, thresholds and curves of a predictions table."""
