"""``cxrlit demo``: a bundle as an HTTP service of this machine, and a page on top of it to try a radiograph."""
