"""Bundles for other teams, who can check, load without trust, and run them."""
