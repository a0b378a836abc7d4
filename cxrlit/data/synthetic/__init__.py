"""One synthetic frontal radiograph: a chest, the findings in it, and the film it is taken on."""
