"""From predictions to tables: metrics, thresholds, and the files that they fill."""
