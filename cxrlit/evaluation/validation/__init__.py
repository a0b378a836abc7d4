"""Internal and external validation of checkpoints."""
