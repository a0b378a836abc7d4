"""Evaluation: predictions, metrics, thresholds, tables and reports."""
