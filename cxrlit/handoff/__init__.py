"""What leaves the project: a bundle that another team can check, load without trusting it, and run."""
