"""Weights of every origin: checkpoints, readers, remapping to another architecture, and the model zoo."""
