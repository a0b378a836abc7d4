"""Evaluate a checkpoint, or predictions: python evaluate.py ckpt=PATH [out=DIR] (--help says more)."""

from cxrlit.commands.evaluate import main

if __name__ == "__main__":
    main()
