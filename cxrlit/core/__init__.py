"""The base of the package: errors, whole files, console, signals, ranks. It imports nothing else of cxrlit."""
