"""Inspection of a data set: counts, a sample of its images, terminal tables and an HTML page."""
