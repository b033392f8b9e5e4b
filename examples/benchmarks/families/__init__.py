"""What each family of proposals is worth on the quickstart's target; see ``examples/benchmarks/proposals.py``."""
