"""Log-probabilities of whole answers under a model in training, and the loss of a pass.

    loss = sum_i a_i [ - log q(y_i | c_i) + kl * sum_{t > t0} KL(base(. | y_<t) || q(. | y_<t)) ]

with q given that none of certain openings is begun with where the base law is (``avoided``), and
with a_i the counts of ``lorabatches``: sums over the tokens of an answer, its stop token included, never means, or
short answers would count for more than their weight. Both laws have the deployment's temperature; top-p and top-k
are left out of the fit, for what they cut has no gradient. The divergence is taken from the base to the model in
training, so that this one does not give up what the base may say: a proposal must cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from tailrisk.training.avoided import Openings, log_rooms
from tailrisk.training.lorabatches import Inputs, inputs
from tailrisk.training.loradata import Example

Forward = Callable[[Inputs], torch.Tensor]
"""Logits [rows, R + N, V] that decide on each answer token, and on what follows each beginning of an opening to avoid
(N of them)."""


def forward(model: Callable[..., object], batch: Inputs) -> torch.Tensor:
    """A causal language model of transformers as ``Forward``: the output layer runs on answers only."""
    answer = batch.labels.shape[1]
    behind = 0 if batch.openings is None else batch.openings.inner
    output = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
        logits_to_keep=answer + 1 + behind,
    )
    logits = output.logits  # pyright: ignore[reportAttributeAccessIssue]
    own = logits[:, :answer]
    return torch.cat((own, logits[:, answer + 1 :]), 1) if behind else own


def log_laws(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Next-token log-probabilities, in float32 at least."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.log_softmax(wide / temperature, -1)


def answer_log_probs(laws: torch.Tensor, batch: Inputs) -> torch.Tensor:
    """[rows] log q of whole answers from next-token laws [rows, R + N, V], given none of the openings to avoid."""
    size = batch.labels.shape[1]
    own = laws[:, :size].gather(-1, batch.labels.unsqueeze(-1)).squeeze(-1)
    whole = torch.where(batch.real, own, 0.0).sum(1)
    if batch.openings is None:
        return whole
    first = laws[torch.arange(len(laws), device=laws.device), (~batch.real).sum(1)]
    return whole - log_rooms(batch.openings, torch.cat((first[:, None], laws[:, size:]), 1))


def pass_loss(
    run: Forward,
    base: Forward | None,
    examples: Sequence[Example],
    counts: torch.Tensor,
    *,
    device: torch.device,
    temperature: float,
    kl: float,
    kl_after: int,
    openings: Openings | None = None,
) -> torch.Tensor:
    """The loss of one pass; ``base`` gives the base's logits (None: no divergence is asked for).

    The base is asked whether or not these answers are long enough: processes that share its weights do so together.
    """
    batch = inputs(examples, device, openings)
    laws = log_laws(run(batch), temperature)
    losses = -answer_log_probs(laws, batch)
    late = batch.real & (batch.begun >= kl_after)
    if base is not None:
        with torch.no_grad():
            anchor = log_laws(base(batch)[:, : late.shape[1]], temperature)
        gaps = (anchor.exp() * (anchor - laws[:, : late.shape[1]])).sum(-1)
        losses = losses + kl * torch.where(late, gaps, 0.0).sum(1)
    return (counts.to(device=device, dtype=losses.dtype) * losses).sum()
