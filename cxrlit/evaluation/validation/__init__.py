"""Internal and external validation: which data a checkpoint is evaluated on."""
