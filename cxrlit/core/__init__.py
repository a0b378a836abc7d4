"""What everything else stands on: errors, whole files, the console, signals, ranks. It imports nothing of cxrlit."""
