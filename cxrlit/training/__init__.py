"""Training of single phases and of chains of phases."""
