"""Heatmaps of labels, and their agreement with boxes drawn by radiologists."""
