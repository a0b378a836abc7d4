"""What computes a bundle's networks: torch, ONNX Runtime or OpenVINO. A file a backend; the last two need no torch."""
