"""What was evaluated as a page of one file, and its pictures."""
