"""Train a chest X-ray classifier: python train.py phase=highres img_size=320 (--help says more)."""

from cxrlit.commands.train import main

if __name__ == "__main__":
    main()
