"""Teacher-forced log-probabilities of given responses, token by token.

The prompt is passed once; equal responses and equal openings are computed once, as a tree whose texts see
their own ancestors only. The output layer runs only where some response goes on. Log-softmax is in float32
(float64 for float64 models), in pieces small enough to stay in the processor's cache; callers add up the
float64 results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tailrisk.errors import ModelError
from tailrisk.models.cache import PromptCache
from tailrisk.models.engine import Body, Stage, View, after
from tailrisk.models.prefill import Prefill, Prefills
from tailrisk.models.tree import Pack, packs
from tailrisk.models.warp import Warp, check_finite
from tailrisk.records import FloatArray


class Scores(NamedTuple):
    """``tokens``: for every response the float64 log-probabilities of its tokens, ``-inf`` where the sampling
    settings cut one. ``first`` [V]: log-probabilities of the first token."""

    tokens: list[FloatArray]
    first: FloatArray


class Chunks(NamedTuple):
    """Most inner texts in one tree, in all trees of one pass of the body; most rows in one pass of the output
    layer, in one softmax."""

    tree: int
    body: int
    head: int
    softmax: int


# Attention costs the square of a tree's size, while the matrix products like many tokens at once: so several
# small trees go side by side. What the softmax works on stays in the processor's cache.
_CPU, _GPU = Chunks(64, 512, 256, 8), Chunks(256, 4096, 1024, 1024)


def token_log_probs(
    view: View,
    prompt_ids: tuple[int, ...],
    tokens: Sequence[NDArray[np.int32]],
    warp: Warp = Warp(),  # noqa: B008 (an immutable tuple)
    *,
    where: str = "the prompt",
    chunks: Chunks | None = None,
    prefills: Prefills | None = None,
) -> Scores:
    """Log-probabilities of all tokens of all responses under one view, sampling settings applied.

    ``prefills``: prompts read before. Errors: ModelError for non-finite logits, ids outside the vocabulary, and
    responses that do not fit.
    """
    with Stage() as stage:
        body = stage.show(view)
        texts = [tuple(t.tolist()) for t in tokens]
        _check_ids(texts, body, where)
        body.check_length(len(prompt_ids), max((len(t) for t in texts), default=0), where)
        if chunks is None:
            chunks = _CPU if body.device.type == "cpu" else _GPU
        while True:
            try:
                prompt = (prefills or Prefills()).read(body, view, prompt_ids)
                return _score(body, prompt, texts, warp, f"{where} ({view.name})", chunks)
            except torch.cuda.OutOfMemoryError:
                if chunks.body == 1:
                    raise
                torch.cuda.empty_cache()
                chunks = Chunks(*(max(1, size // 2) for size in chunks))


def next_token_log_probs(
    view: View,
    prompt_ids: tuple[int, ...],
    texts: Sequence[tuple[int, ...]],
    warp: Warp,
    *,
    where: str,
    prefills: Prefills,
) -> list[FloatArray]:
    """[V] log-probabilities of the token after each of a few short ``texts`` behind the prompt, sampling settings
    applied. Errors: ModelError as for ``token_log_probs``."""
    with Stage() as stage:
        body = stage.show(view)
        _check_ids(texts, body, where)
        body.check_length(len(prompt_ids), max(map(len, texts)), where)
        prompt = prefills.read(body, view, prompt_ids)
        laws = []
        for text in texts:
            state = prompt.hidden
            if text:
                ids = torch.tensor([text], device=body.device)
                mask = after(len(prompt_ids), len(text), body.device)
                state = body.hidden(ids, len(prompt_ids), prompt.cache, mask)[0, -1:]
            logits = body.logits(state)
            check_finite(logits, f"token {len(text)} of {where} ({view.name})")
            laws.append(torch.log_softmax(warp.scores(logits), -1)[0].double().cpu().numpy())
        return laws


def _score(
    body: Body,
    prompt: Prefill,
    texts: Sequence[tuple[int, ...]],
    warp: Warp,
    where: str,
    chunks: Chunks,
) -> Scores:
    distinct = sorted(set(texts))
    # Row 0 of every tree is the same hidden state, that of the prompt: it is kept once, as row 0 of all.
    trees = sorted(packs(distinct, chunks.tree), key=lambda tree: len(tree.tokens))
    states, rows, edges, offset = [prompt.hidden], [], [], 0
    for group in _passes(trees, chunks.body):
        states.extend(_inner_states(body, prompt.cache, group))
    for tree in trees:
        rows.append(np.where(tree.edge_row == 0, 0, tree.edge_row + offset))
        edges.append(tree.edge_token)
        offset += len(tree.tokens)
    depths = np.concatenate((np.zeros(1, dtype=np.int64), *(tree.depth + 1 for tree in trees)))
    values, first = _edge_values(
        body, torch.cat(states), _joined(rows), _joined(edges), depths, warp, where, chunks
    )
    found: dict[tuple[int, ...], FloatArray] = {}
    start = 0
    for tree in trees:
        for number, path in tree.paths:
            found[distinct[number]] = values[start + np.array(path, dtype=np.int64)]
        start += len(tree.edge_row)
    return Scores([found[t].copy() for t in texts], first)


def _passes(trees: Sequence[Pack], limit: int) -> Iterator[list[Pack]]:
    """Trees, smallest first, in groups of at most ``limit`` tokens after padding to the group's largest."""
    group: list[Pack] = []
    for tree in trees:
        if group and (len(group) + 1) * len(tree.tokens) > limit:
            yield group
            group = []
        if len(tree.tokens):
            group.append(tree)
    if group:
        yield group


def _joined(pieces: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)


def _inner_states(body: Body, cache: PromptCache, trees: Sequence[Pack]) -> list[torch.Tensor]:
    """Hidden states [N, H] of the inner texts of each tree; a tree is one row behind the prompt."""
    prompt = cache.length
    size = max(len(tree.tokens) for tree in trees)
    ids = np.zeros((len(trees), size), dtype=np.int64)
    positions = np.full((len(trees), size), prompt)
    # Padding sees the prompt only, and nothing sees padding.
    mask = np.zeros((len(trees), 1, size, prompt + size), dtype=np.bool_)
    mask[..., :prompt] = True
    for row, tree in enumerate(trees):
        count = len(tree.tokens)
        ids[row, :count] = tree.tokens
        positions[row, :count] += tree.depth
        mask[row, 0, :count, prompt : prompt + count] = tree.mask
    at = body.device
    hidden = body.hidden(
        torch.from_numpy(ids).to(at),
        torch.from_numpy(positions).to(at),
        cache,
        torch.from_numpy(mask).to(at),
    )
    return [hidden[row, : len(tree.tokens)] for row, tree in enumerate(trees)]


def _edge_values(
    body: Body,
    states: torch.Tensor,
    rows: NDArray[np.int64],
    tokens: NDArray[np.int64],
    depths: NDArray[np.int64],
    warp: Warp,
    where: str,
    chunks: Chunks,
) -> tuple[FloatArray, FloatArray]:
    """Log-probabilities of ``tokens`` [E] in the laws of ``rows`` [E], and the whole law [V] of row 0."""
    order = np.argsort(rows, kind="stable")
    sorted_rows, sorted_tokens = torch.from_numpy(rows[order]), torch.from_numpy(tokens[order])
    values = torch.empty(len(order), dtype=torch.float64)
    first = torch.empty(0)
    for head in range(0, len(states), chunks.head):
        logits = body.logits(states[head : head + chunks.head])
        for piece in range(0, len(logits), chunks.softmax):
            part = logits[piece : piece + chunks.softmax]
            low = head + piece
            high = low + len(part)
            check_finite(part, f"token {int(depths[low])} (or the next few) of {where}")
            law = torch.log_softmax(warp.scores(part), -1)
            a, b = np.searchsorted(rows[order], (low, high))
            at = (sorted_rows[a:b] - low).to(law.device)
            values[a:b] = law[at, sorted_tokens[a:b].to(law.device)].double().cpu()
            if low == 0:
                first = law[0].double().cpu()
    result = np.empty(len(order))
    result[order] = values.numpy()
    return result, first.numpy()


def _check_ids(texts: Sequence[tuple[int, ...]], body: Body, where: str) -> None:
    wrong = sorted({t for text in texts for t in text if not 0 <= t < body.vocabulary})
    if wrong:
        raise ModelError(
            f"{where}: token id {wrong[0]} is outside the model's vocabulary (0 to {body.vocabulary - 1})"
        )
