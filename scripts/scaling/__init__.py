"""What `scripts/simulate_scaling` consists of."""
