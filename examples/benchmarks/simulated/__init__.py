"""Simulated laws for the scale benchmark: exact tables in the place of models, sleep in the place of their work."""
