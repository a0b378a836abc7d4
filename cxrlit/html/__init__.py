"""HTML pages: one file each, that loads nothing and runs no script but its own."""
