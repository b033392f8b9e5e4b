"""The driver: rounds, budget, stopping, recovery."""
