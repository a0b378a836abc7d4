"""Quantisation of a bundle's networks to int8, and the gate that they must pass."""
