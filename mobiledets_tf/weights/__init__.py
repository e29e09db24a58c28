"""Weights that travel: batch normalisation recovered, trained weights on another architecture, the zoo."""
