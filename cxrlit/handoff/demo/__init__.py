"""``cxrlit demo``: a page on this machine to try a bundle with a radiograph of one's own."""
