"""What a network starts from: files of weights of many programs, and what they were trained on."""
