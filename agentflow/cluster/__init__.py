"""What a person holds: clusters, simulations, runs and their tables."""
