"""Read the text cells of label tables as values."""
