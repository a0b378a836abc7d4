"""Decode image files into gray values."""
