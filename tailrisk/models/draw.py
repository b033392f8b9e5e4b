"""Tokens from laws and uniform numbers, by the inverse of the distribution function.

The sum over the vocabulary runs in two levels: float32 sums of short blocks, added up in float64, then the
chosen block alone in float64. That is exact to about one part in ten million (a float32 softmax is no
better), and costs a fraction of a float64 sum over the vocabulary.
"""

from __future__ import annotations

import torch


def pick(probs: torch.Tensor, rows: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Token i is drawn from law ``rows[i]`` with the uniform number ``uniforms[i]`` in [0, 1).

    ``probs`` [m, V] non-negative, rows summing to about one; ``rows`` [n]; ``uniforms`` [n] float64;
    returns [n] token ids, all of positive probability.
    """
    count, size = probs.shape
    width = next((w for w in (256, 128, 64) if size % w == 0), 0)
    if not width:
        width = 64 if size > 64 else size
        probs = torch.nn.functional.pad(probs, (0, -size % width))
    blocks = probs.view(count, -1, width)
    sums = blocks.sum(-1).double().cumsum(-1)[rows]
    goal = _below(uniforms.unsqueeze(-1) * sums[:, -1:], sums[:, -1:])
    block = torch.searchsorted(sums, goal, right=True).squeeze(-1)
    before = sums.gather(-1, (block - 1).clamp(min=0).unsqueeze(-1))
    goal = goal - before.where(block.unsqueeze(-1) > 0, torch.zeros_like(before))
    inner = blocks[rows, block].double().cumsum(-1)
    token = torch.searchsorted(inner, _below(goal, inner[:, -1:]), right=True).squeeze(-1)
    return block * width + token


def _below(value: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    """``value``, but strictly below ``total``: rounding must not lead past the last possible token."""
    return torch.minimum(value, torch.nextafter(total, torch.zeros_like(total)))
