"""hptune finds good training settings for PyTorch by short, staged experiments, and says why."""
