"""Prompts and their harmless rewordings: kinds by rule, paraphrases by a model, and texts of one's own.

A base prompt and its perturbations are a group. Texts are data: nothing here says them in a message.
"""

from tailrisk.perturbations.groups import LeftOut, Made, Proposed, make_groups, row_of
from tailrisk.perturbations.rules import RULES

__all__ = ["RULES", "LeftOut", "Made", "Proposed", "make_groups", "row_of"]
