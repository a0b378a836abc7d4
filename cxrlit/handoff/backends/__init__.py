"""What computes a bundle's networks: torch, or ONNX Runtime, which needs no torch. A file a backend."""
