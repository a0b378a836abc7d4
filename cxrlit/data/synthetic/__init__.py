"""Draw synthetic frontal radiographs: a chest, its findings, and the exposure."""
