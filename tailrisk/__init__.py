"""Estimate the probability of rare harmful answers of a language model, with honest intervals."""

__version__ = "0.1.0"
