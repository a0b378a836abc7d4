"""The report of an evaluation as a single HTML file, and its pictures."""
