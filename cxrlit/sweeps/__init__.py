"""Many trainings, and which of them was best on validation."""
