"""From the text cells of a label table to values."""
