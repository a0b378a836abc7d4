"""Metrics, their intervals, calibration and operating points: arrays in, numbers out."""
