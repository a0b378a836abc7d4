"""The commands of ``cxrlit``, by what they need."""
