"""Weight transfer: recovery of batch normalisation, remapping to another architecture, and the model zoo."""
