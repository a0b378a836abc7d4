"""``cxrlit demo``: a local HTTP service for a bundle, with a page to try radiographs."""
