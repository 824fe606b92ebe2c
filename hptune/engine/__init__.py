"""Data, models and the training step: all that knows torch."""
