"""Sweeps: many trainings, compared on validation."""
