"""What is in a data set: counted, looked at, shown on the screen and as an HTML page."""
