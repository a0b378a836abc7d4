"""One phase, and the chain of them."""
