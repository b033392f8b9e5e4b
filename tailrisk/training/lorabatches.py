"""Which examples go into which step: drawn by weight, the same on every process, in passes of equal size.

Examples are drawn in proportion to their weights, as many as there are, by systematic resampling; one that is drawn
several times is computed once and counts several times. A step's gradient is then that of the weighted
log-likelihood, up to a factor, whatever the spread of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from tailrisk.records import FloatArray, IntArray
from tailrisk.training.avoided import Openings
from tailrisk.training.loradata import Example


class Pass(NamedTuple):
    """One pass of one process: numbers of examples, and how much each counts (0: fills the pass only)."""

    rows: IntArray
    counts: FloatArray


class Inputs(NamedTuple):
    """Texts padded on the left, so that all answers end together. ``ids``, ``mask`` and ``positions`` [rows, T];
    ``labels`` [rows, R] the answers' tokens and ``real`` [rows, R] where one stands; ``begun`` [rows, R] the number
    of answer tokens before each.

    With ``openings`` their beginnings stand behind the answers, and ``mask`` is [rows, 1, T, T], who sees whom."""

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    real: torch.Tensor
    begun: torch.Tensor
    openings: Openings | None = None

    def to(self, device: torch.device) -> Inputs:
        return self._replace(
            ids=self.ids.to(device),
            mask=self.mask.to(device),
            positions=self.positions.to(device),
            labels=self.labels.to(device),
            real=self.real.to(device),
            begun=self.begun.to(device),
        )


def step_shape(batch: int, world: int, rows: int) -> tuple[int, int]:
    """Examples in a pass at most, and passes of a step on each of ``world`` processes."""
    rows = min(rows, -(-batch // world))
    return rows, -(-batch // (world * rows))


def epoch_steps(
    weights: FloatArray, batch: int, world: int, rows: int, rng: np.random.Generator
) -> Iterator[list[list[Pass]]]:
    """One epoch: for every step, for each of ``world`` processes, its passes, as many for all and in all steps.

    ``rows``: examples in a pass at most. Counts of a step sum to one over all processes.
    """
    n = len(weights)
    edges = np.cumsum(weights) * (n / weights.sum())
    counts = np.bincount(
        np.minimum(np.searchsorted(edges, np.arange(n) + rng.random(), side="right"), n - 1), minlength=n
    )
    drawn = rng.permutation(np.flatnonzero(counts))
    rows, passes = step_shape(batch, world, rows)
    for part in np.array_split(drawn, -(-len(drawn) // batch)):
        total = counts[part].sum()
        yield [_passes(part[p::world], counts, total, passes, rows, int(part[0])) for p in range(world)]


def _passes(own: IntArray, counts: IntArray, total: int, passes: int, rows: int, filler: int) -> list[Pass]:
    found = []
    for number in range(passes):
        part = own[number * rows : (number + 1) * rows]
        if len(part):
            found.append(Pass(part, counts[part] / total))
        else:
            # Processes wait for one another in every pass, so each has as many.
            found.append(Pass(np.array([filler]), np.zeros(1)))
    return found


def inputs(examples: Sequence[Example], device: torch.device, openings: Openings | None = None) -> Inputs:
    """Examples of one pass as tensors. ``openings`` to avoid, each at least a token long."""
    longest = max(len(e.prompt) + len(e.response) for e in examples)
    answer = max(len(e.response) for e in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask = torch.zeros(len(examples), longest, dtype=torch.long)
    labels = torch.zeros(len(examples), answer, dtype=torch.long)
    real = torch.zeros(len(examples), answer, dtype=torch.bool)
    begun = torch.zeros(len(examples), answer, dtype=torch.long)
    for row, (prompt, response) in enumerate(examples):
        text, size = (*prompt, *response), len(response)
        ids[row, longest - len(text) :] = torch.tensor(text)
        mask[row, longest - len(text) :] = 1
        labels[row, answer - size :] = torch.tensor(response)
        real[row, answer - size :] = True
        begun[row, answer - size :] = torch.arange(size)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    batch = Inputs(ids, mask, positions, labels, real, begun)
    return (batch if openings is None else _with_openings(batch, examples, openings)).to(device)


def _with_openings(batch: Inputs, examples: Sequence[Example], openings: Openings) -> Inputs:
    """The beginnings, in the places of an answer's first tokens; each sees the prompt and what it begins with."""
    rows, longest = batch.ids.shape
    inner, tree = openings.inner, openings.tree
    prompts = torch.tensor([len(e.prompt) for e in examples])
    tokens, depth = torch.as_tensor(tree.tokens), torch.as_tensor(tree.depth)
    sees = torch.zeros(rows, longest + inner, longest + inner, dtype=torch.bool)
    sees[:, :longest, :longest] = batch.mask.bool()[:, None] & torch.ones(longest, longest).tril().bool()
    prompt = batch.mask.bool() & (batch.positions < prompts[:, None])
    sees[:, longest:, :longest] = prompt[:, None]
    sees[:, longest:, longest:] = torch.as_tensor(tree.mask)
    # What fills a row must see something, or its softmax is no number.
    sees |= torch.eye(longest + inner, dtype=torch.bool)
    return batch._replace(
        ids=torch.cat((batch.ids, tokens.expand(rows, -1)), 1),
        mask=sees[:, None],
        positions=torch.cat((batch.positions, prompts[:, None] + depth), 1),
        openings=openings,
    )
