"""Texts as trees: which rows a decoding step keeps, and which positions a scoring pass has to compute.

Responses to one prompt repeat: refusals open alike, short answers are equal. A text that several draws share
is computed once, in sampling and in scoring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class Growth(NamedTuple):
    """One step from m texts to m' longer ones.

    ``slot`` [draws]: the row of each draw's new text; ``tokens`` [m']: the token that each row gained;
    ``sources`` and ``targets``: rows to be copied before the step, never one into another's source.
    """

    slot: IntArray
    tokens: IntArray
    sources: list[int]
    targets: list[int]


def grow(parents: IntArray, tokens: IntArray, share: bool = True) -> Growth:
    """Draw i continues the text in row ``parents[i]`` with ``tokens[i]``; rows 0..m'-1 are used afterwards.

    The first continuation of a row stays where it is, as long as its row is below m'; the others are copied
    into rows whose texts have ended (or that are new). ``share`` False gives every draw a text of its own.
    """
    if share:
        pairs, member = np.unique(np.stack((parents, tokens)), axis=1, return_inverse=True)
        member = member.reshape(-1)
    else:
        pairs, member = np.stack((parents, tokens)), np.arange(len(parents))
    count = pairs.shape[1]
    row = np.full(count, -1, dtype=np.int64)
    taken: set[int] = set()
    for text, parent in enumerate(pairs[0].tolist()):
        if parent < count and parent not in taken:
            taken.add(parent)
            row[text] = parent
    free = iter(r for r in range(count) if r not in taken)
    moved = np.flatnonzero(row < 0)
    row[moved] = [next(free) for _ in range(len(moved))]
    gained = np.empty(count, dtype=np.int64)
    gained[row] = pairs[1]
    return Growth(row[member], gained, pairs[0][moved].tolist(), row[moved].tolist())


class Pack(NamedTuple):
    """Some responses as one tree of E edges (a token after a text) and N inner texts.

    Row 0 stands for the prompt itself, row i + 1 for inner text i, that is, one that goes on. ``tokens``,
    ``depth`` and ``mask`` describe the inner texts in order: the last token, its distance from the prompt
    (0 for first tokens), and [N, N] who sees whom. ``edge_row`` and ``edge_token`` [E] say from which row
    which token goes out; ``paths`` gives for every response of the pack its number and its edges.
    """

    tokens: IntArray
    depth: IntArray
    mask: NDArray[np.bool_]
    edge_row: IntArray
    edge_token: IntArray
    paths: list[tuple[int, list[int]]]


def packs(responses: Sequence[tuple[int, ...]], limit: int) -> Iterator[Pack]:
    """All responses, in packs of at most ``limit`` inner texts (more only for a response that is longer).

    Sorted responses share the longest openings with their neighbours, so give them sorted.
    """
    builder = _Builder()
    for number, response in enumerate(responses):
        if builder.paths and builder.size + builder.cost(response) > limit:
            yield builder.pack()
            builder = _Builder()
        builder.add(number, response)
    if builder.paths:
        yield builder.pack()


class _Builder:
    def __init__(self) -> None:
        self.paths: list[tuple[int, list[int]]] = []
        self._edges: dict[tuple[int, int], int] = {}
        # The row behind an edge, once its text goes on; parent row and edge of every row but the first.
        self._row_of: dict[int, int] = {}
        self._inner: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return len(self._inner)

    def cost(self, response: tuple[int, ...]) -> int:
        """How many inner texts the response would add."""
        row, known = 0, 0
        for token in response[:-1]:
            edge = self._edges.get((row, token))
            if edge is None or edge not in self._row_of:
                break
            row, known = self._row_of[edge], known + 1
        return max(0, len(response) - 1 - known)

    def add(self, number: int, response: tuple[int, ...]) -> None:
        row, path = 0, []
        for place, token in enumerate(response):
            edge = self._edges.setdefault((row, token), len(self._edges))
            path.append(edge)
            if place + 1 == len(response):
                break
            if edge not in self._row_of:
                self._inner.append((row, edge))
                self._row_of[edge] = len(self._inner)
            row = self._row_of[edge]
        self.paths.append((number, path))

    def pack(self) -> Pack:
        count = len(self._inner)
        keys = list(self._edges)
        mask = np.zeros((count, count), dtype=np.bool_)
        depth = np.zeros(count, dtype=np.int64)
        tokens = np.zeros(count, dtype=np.int64)
        for i, (parent, edge) in enumerate(self._inner):
            tokens[i] = keys[edge][1]
            if parent:
                mask[i] = mask[parent - 1]
                depth[i] = depth[parent - 1] + 1
            mask[i, i] = True
        ends = np.array(keys, dtype=np.int64).reshape(-1, 2)
        return Pack(tokens, depth, mask, ends[:, 0], ends[:, 1], self.paths)
