"""Starting weights: files of many programs, and what they were trained on."""
