"""Metrics by sex, age and view, and the gaps between groups."""
