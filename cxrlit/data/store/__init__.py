"""The store: the images of an index at one size, decoded once, packed and memory-mapped."""
