"""A bundle's networks in int8: how they are quantised, and the gate that they must pass."""
