"""The deployment's sampling settings, applied to logits in one place for sampling and for scoring alike.

Order as in ``transformers``: temperature, top-k, top-p; what is left is renormalised. Tokens that tie with
the last one kept are kept too, so the law does not depend on the order of a sort. Where top-k or top-p cut,
a token at the edge may be kept by one pass and cut by another whose logits differ by rounding: in half
precision such draws can have probability zero in the scoring pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from tailrisk.errors import ModelError

# Most nuclei are far smaller than this; where one is not, the whole row is sorted.
_HEAD = 1024


class Warp(NamedTuple):
    """``top_k`` 0 and ``top_p`` 1 keep everything."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Unnormalised log-probabilities [rows, V] in float32 (float64 for float64 logits), ``-inf`` where
        a token is cut. ``logits`` is not changed."""
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.temperature != 1.0:
            scores = scores / self.temperature
        if 0 < self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k, dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < least, float("-inf"))
        if self.top_p < 1.0:
            scores = scores.masked_fill(scores < self._least_of_nucleus(scores), float("-inf"))
        return scores

    def _least_of_nucleus(self, scores: torch.Tensor) -> torch.Tensor:
        """[rows, 1] score of the last token that is needed to reach ``top_p``."""
        log_z = torch.logsumexp(scores.double(), -1, keepdim=True)
        size = scores.shape[-1]
        for count in (min(_HEAD, size), size):
            top = scores.topk(count, dim=-1).values
            reached = (top.double() - log_z).exp().cumsum(-1)
            if count == size or bool((reached[:, -1] >= self.top_p).all()):
                break
        last = (reached < self.top_p).sum(-1, keepdim=True).clamp(max=size - 1)
        return top.gather(-1, last)


class TokenLaw(NamedTuple):
    """Laws of the next token, one a row: ``scores`` [rows, V] up to a constant, ``probs`` [rows, V], and
    ``log_z`` [rows] float64 with log p = scores - log_z."""

    scores: torch.Tensor
    probs: torch.Tensor
    log_z: torch.Tensor

    def log_prob(self, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """float64 log-probabilities of ``tokens`` under the laws ``rows``, both [n]."""
        return self.scores[rows, tokens].double() - self.log_z[rows]


def token_law(
    logits: torch.Tensor, warp: Warp, where: str, tilts: Sequence[tuple[int, int, float]] = ()
) -> TokenLaw:
    """The law of the next token, each (row, token, log factor) of ``tilts`` multiplied in and the row
    renormalised. Errors: ModelError, ``where`` named."""
    check_finite(logits, where)
    scores = warp.scores(logits)
    if tilts:
        where_to = torch.tensor([tilt[:2] for tilt in tilts], device=scores.device)
        factors = torch.tensor([tilt[2] for tilt in tilts], dtype=scores.dtype, device=scores.device)
        scores = scores.index_put(tuple(where_to.T), factors, accumulate=True)
    best = scores.amax(-1)
    if bool((best == float("-inf")).any()):
        raise ModelError(f"no token is left at {where}: all that sampling allows are openings to avoid")
    # The vectorised softmax is the cheapest exponential there is; its largest entry gives back log Z.
    probs = torch.softmax(scores, -1)
    return TokenLaw(scores, probs, best.double() - probs.amax(-1).double().log())


def check_finite(logits: torch.Tensor, where: str) -> None:
    """Errors: ModelError where a logit is NaN or infinite."""
    # The extremes of a row show NaN and both infinities, at a fraction of the cost of isfinite.
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if not bool(torch.isfinite(wide.amax(-1) - wide.amin(-1)).all()):
        raise ModelError(f"non-finite logits at {where}; the model's weights or its dtype are not usable")
