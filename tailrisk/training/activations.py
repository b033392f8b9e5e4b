"""Residual-stream activations behind every block, read in batches.

Block l's *output* is layer l everywhere in this package, as in vector files; what ``transformers`` calls hidden
state i is the output of block i - 1. Texts of different lengths share a pass, padded on the right: the models
are causal, so no token sees what stands behind it, and positions need no shift. Sums are in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch

from tailrisk.errors import InputError, ModelError
from tailrisk.models.engine import Body, Stage, View
from tailrisk.models.interventions.blocks import Block, blocks_of, hidden_size

Ids = Sequence[int]
Step = Callable[[int], None]
"""Told how many texts have been read since the last call."""

_CPU_TOKENS, _GPU_TOKENS = 512, 8192


class Padded(NamedTuple):
    """Texts of one pass: ``rows`` are their numbers, ``ids`` [rows, longest], ``lengths`` their own lengths."""

    rows: list[int]
    ids: torch.Tensor
    lengths: list[int]


def padded(texts: Sequence[Ids], device: torch.device, limit: int | None = None) -> Iterator[Padded]:
    """All texts, shortest first, in passes of at most ``limit`` tokens, padding counted (one text at least)."""
    if limit is None:
        limit = _CPU_TOKENS if device.type == "cpu" else _GPU_TOKENS
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    group: list[int] = []
    for row in order:
        if group and (len(group) + 1) * len(texts[row]) > limit:
            yield _pad(texts, group, device)
            group = []
        group.append(row)
    if group:
        yield _pad(texts, group, device)


def read(body: Body, batch: Padded) -> torch.Tensor:
    """Last hidden states [rows, longest, H]; what stands on the padding means nothing."""
    positions = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand(len(batch.rows), -1)
    return body.hidden(batch.ids, positions, None)


def prompt_means(
    view: View, prompts: Sequence[Ids], positions: int, step: Step = lambda n: None
) -> torch.Tensor:
    """[positions, blocks, H] float64: mean over ``prompts`` (token ids) of every block's output at their last
    ``positions`` tokens, the last of them at index -1.

    Errors: InputError for no prompts or one with fewer tokens, ModelError for activations that are not finite.
    """
    if not prompts:
        raise InputError("no prompts to read activations of")
    if (shortest := min(map(len, prompts))) < positions:
        raise InputError(f"the last {positions} tokens are wanted; the shortest prompt has {shortest}")
    total = torch.zeros(positions, len(blocks_of(view.model)), hidden_size(view.model), dtype=torch.float64)
    for batch, outputs in _passes(view, prompts, step):
        ends = torch.tensor(batch.lengths, device=batch.ids.device)
        at = ends[:, None] + torch.arange(-positions, 0, device=ends.device)
        rows = torch.arange(len(ends), device=ends.device)[:, None]
        for layer, output in enumerate(outputs):
            total[:, layer] += output[rows, at].double().sum(0).cpu()
    return _finite(total / len(prompts))


def response_means(view: View, pairs: Sequence[tuple[Ids, Ids]], step: Step = lambda n: None) -> torch.Tensor:
    """[n, blocks, H] float32: for each pair of prompt ids and response ids, every block's output, mean over the
    response's tokens (Chen et al. 2025, "Persona vectors").

    Errors: InputError for an empty prompt or response, ModelError for activations that are not finite.
    """
    for number, (prompt, response) in enumerate(pairs):
        if not len(prompt) or not len(response):
            raise InputError(f"pair {number}: an empty prompt or response has no activations; leave it out")
    texts = [(*map(int, prompt), *map(int, response)) for prompt, response in pairs]
    found = torch.zeros(len(texts), len(blocks_of(view.model)), hidden_size(view.model))
    for batch, outputs in _passes(view, texts, step):
        for layer, output in enumerate(outputs):
            for place, row in enumerate(batch.rows):
                own = output[place, len(pairs[row][0]) : batch.lengths[place]]
                found[row, layer] = own.double().mean(0).float().cpu()
    return _finite(found)


def _passes(view: View, texts: Sequence[Ids], step: Step) -> Iterator[tuple[Padded, list[torch.Tensor]]]:
    """Every batch with the outputs [rows, longest, H] of all blocks."""
    with Stage() as stage:
        body = stage.show(view)
        body.check_length(max(map(len, texts), default=0), 0, "the longest text")
        for batch in padded(texts, body.device):
            with _kept(blocks_of(view.model)) as outputs:
                read(body, batch)
            yield batch, outputs
            step(len(batch.rows))


@contextmanager
def _kept(blocks: Sequence[Block]) -> Iterator[list[torch.Tensor]]:
    """Fills a list with the blocks' outputs, in order, during one pass; interventions have had their say."""
    outputs: list[torch.Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as stack:
        for block in blocks:
            stack.callback(block.layer.register_forward_hook(keep).remove)
        yield outputs


def _pad(texts: Sequence[Ids], rows: list[int], device: torch.device) -> Padded:
    lengths = [len(texts[row]) for row in rows]
    # Which token pads does not matter: nothing sees it.
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : lengths[place]] = torch.tensor(list(texts[row]), dtype=torch.long)
    return Padded(list(rows), ids.to(device), lengths)


def _finite(states: torch.Tensor) -> torch.Tensor:
    if not bool(torch.isfinite(states).all()):
        raise ModelError(
            "activations are not finite; check the model and its dtype (float16 overflows easily)"
        )
    return states
