"""Log-probabilities of whole answers under a model in training, and the loss of a pass.

    loss = sum_i a_i [ - log q(y_i | c_i) + kl * sum_{t > t0} KL(base(. | y_<t) || q(. | y_<t)) ]

with a_i the counts of ``lorabatches``: sums over the tokens of an answer, its stop token included, never means, or
short answers would count for more than their weight. Both laws have the deployment's temperature; top-p and top-k
are left out of the fit, for what they cut has no gradient. The divergence is taken from the base to the model in
training, so that this one does not give up what the base may say: a proposal must cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from tailrisk.training.lorabatches import Inputs, inputs
from tailrisk.training.loradata import Example

Forward = Callable[[Inputs], torch.Tensor]
"""Logits [rows, R, V] that decide on each answer token."""


def forward(model: Callable[..., object], batch: Inputs) -> torch.Tensor:
    """A causal language model of transformers as ``Forward``: the output layer runs on answers only."""
    answer = batch.labels.shape[1]
    output = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
        logits_to_keep=answer + 1,
    )
    return output.logits[:, :-1]  # pyright: ignore[reportAttributeAccessIssue]


def log_laws(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Next-token log-probabilities, in float32 at least."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.log_softmax(wide / temperature, -1)


def answer_log_probs(laws: torch.Tensor, batch: Inputs) -> torch.Tensor:
    """[rows] log q of whole answers from next-token laws [rows, R, V]."""
    own = laws.gather(-1, batch.labels.unsqueeze(-1)).squeeze(-1)
    return torch.where(batch.real, own, 0.0).sum(1)


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
) -> torch.Tensor:
    """The loss of one pass; ``base`` gives the base's logits (None: no divergence is asked for).

    The base is asked whether or not these answers are long enough: processes that share its weights do so together.
    """
    batch = inputs(examples, device)
    laws = log_laws(run(batch), temperature)
    losses = -answer_log_probs(laws, batch)
    late = batch.real & (batch.begun >= kl_after)
    if base is not None:
        with torch.no_grad():
            anchor = log_laws(base(batch), temperature)
        gaps = (anchor.exp() * (anchor - laws)).sum(-1)
        losses = losses + kl * torch.where(late, gaps, 0.0).sum(1)
    return (counts.to(device=device, dtype=losses.dtype) * losses).sum()
