"""cxrlit: train, evaluate and hand over chest X-ray classifiers."""

__version__ = "0.1.0"
