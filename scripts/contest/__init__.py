"""Searches compared: what a training job ends at with the configuration each of them recommends at equal cost."""
