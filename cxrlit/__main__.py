"""``python -m cxrlit``: the command ``cxrlit``."""

from cxrlit.commands.cli import main

if __name__ == "__main__":
    main()
