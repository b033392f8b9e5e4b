"""What a law in training leaves to answers that begin with none of certain openings, as ``models.avoid`` has it.

On top of a prefix that shuts openings out an adapter is fitted to log q(y) - log room(q), room being the
probability of none of them. The beginnings of openings ride along with every answer, as a tree behind it that sees
its prompt alone, so that one pass gives both.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from tailrisk.models.avoid import Text, prefix_free
from tailrisk.models.tree import Pack, packs


class Openings(NamedTuple):
    """``tree``: all openings as one tree; ``behind``: the row behind an edge, where an opening goes on."""

    tree: Pack
    behind: dict[int, int]

    @property
    def inner(self) -> int:
        """The number of their beginnings, the empty one left out."""
        return len(self.tree.tokens)


def openings_of(avoided: Sequence[Text]) -> Openings | None:
    """None where nothing is avoided."""
    if not avoided:
        return None
    (tree,) = packs(sorted(prefix_free(avoided)), sum(map(len, avoided)))
    behind = {
        edge: int(tree.edge_row[following]) for _, path in tree.paths for edge, following in pairwise(path)
    }
    return Openings(tree, behind)


def log_rooms(openings: Openings, laws: torch.Tensor) -> torch.Tensor:
    """[rows] log-probabilities of none of the openings, from the log-laws [rows, 1 + inner, V] of what follows the
    prompt and each beginning. The sums run over what is left, which may be 1e-4, never over what is avoided."""
    tree, rooms = openings.tree, {}
    # A beginning comes after those that it begins with.
    for row in reversed(range(laws.shape[1])):
        edges, law = np.flatnonzero(tree.edge_row == row), laws[:, row]
        leads = torch.as_tensor(tree.edge_token[edges], device=laws.device)
        parts = [torch.logsumexp(law.index_fill(1, leads, -torch.inf), 1)]
        for edge in edges.tolist():
            if edge in openings.behind:
                parts.append(law[:, int(tree.edge_token[edge])] + rooms[openings.behind[edge]])
        rooms[row] = torch.logsumexp(torch.stack(parts), 0)
    return rooms[0]
