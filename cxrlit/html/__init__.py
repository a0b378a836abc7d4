"""HTML pages: one self-contained file each, which runs no script but its own."""
