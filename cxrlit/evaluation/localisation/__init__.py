"""Where in an image a network sees a label, and how that agrees with boxes that radiologists drew."""
