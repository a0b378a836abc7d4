"""Backends that run a bundle: torch, ONNX Runtime and OpenVINO, a file each. The last two do not need torch."""
