"""Changes inside a model that can be switched on for a while and leave no trace.

An intervention is entered as a context manager; inside, ``model(...)`` computes the changed law, afterwards
the model is bit for bit what it was, also when the body raised. Interventions nest: a later one changes the
model as it finds it. Code that keeps weights of its own (``lm_head.weight``) must fetch them inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Intervention(Protocol):
    """``fingerprint`` hashes what is done (contents, not paths); ``neutral``: it does nothing at all."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def neutral(self) -> bool: ...

    def applied(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """The model is changed inside and restored exactly afterwards."""
        ...


def active(interventions: Iterable[Intervention]) -> tuple[Intervention, ...]:
    """Those that change anything; a view without the others is the same law."""
    return tuple(i for i in interventions if not i.neutral)


@contextmanager
def all_applied(model: PreTrainedModel, interventions: Iterable[Intervention]) -> Iterator[None]:
    """Every intervention, in order, the first one innermost to the weights."""
    with ExitStack() as stack:
        for intervention in active(interventions):
            stack.enter_context(intervention.applied(model))
        yield
