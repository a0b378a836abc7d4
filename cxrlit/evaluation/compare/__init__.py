"""``cxrlit compare``: two models on the same images."""
