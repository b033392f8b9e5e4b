"""Laws in several kinds of workers: who has which, and a batch that goes from one kind to the others.

Implemented for two kinds: the target with its proposals, and the checkpoints that have workers of their own. A batch
is drawn where its component is, and then scored by the others that have laws it is to be scored under.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tailrisk.audit.protocols import LawCard
from tailrisk.audit.verdictcache import LookUp
from tailrisk.audit.work import Draws, Held
from tailrisk.config import Config
from tailrisk.errors import ClusterError
from tailrisk.models.digests import proposal_digest
from tailrisk.records import Batch, FloatArray

MODELS, CHECKPOINTS = "models", "checkpoints"


class Parts:
    """``held``: by pool, in order, the laws of the audit that its workers have; of no use where one has them all."""

    def __init__(self, config: Config) -> None:
        names = config.component_names
        apart = {proposal.name for proposal in config.apart}
        beside = tuple(k for k, name in enumerate(names) if name not in apart)
        self.held = {MODELS: Held(beside, len(names))}
        if apart:
            others = tuple(k for k, name in enumerate(names) if name in apart)
            self.held[CHECKPOINTS] = Held(others, len(names))
        self._cards: dict[str, LawCard] = {}

    @property
    def whole(self) -> bool:
        """One kind of worker has all laws."""
        return len(self.held) == 1

    def drawn_by(self, batch: Batch) -> str:
        if self.whole:
            return MODELS
        return next(name for name, held in self.held.items() if batch.component in held.numbers)

    def scored_by(self, batch: Batch) -> list[str]:
        """The pools besides the one that draws it."""
        if self.whole:
            return []
        asked = range(next(iter(self.held.values())).total) if batch.components is None else batch.components
        return [
            name
            for name, held in self.held.items()
            if name != self.drawn_by(batch) and not set(held.numbers).isdisjoint(asked)
        ]

    def built(self, pool: str, card: LawCard, worker: str) -> None:
        """A worker has its laws. Raises ClusterError where others of its kind have different ones."""
        first = self._cards.setdefault(pool, card)
        if card != first:
            raise ClusterError(
                f"cluster.{pool}: the worker on {worker} holds other laws than the first one "
                f"({_difference(first, card)}); every node must see the same model files"
            )

    @property
    def card(self) -> LawCard | None:
        """All laws in the order of the audit; None until each kind of worker has said what it has."""
        if len(self._cards) < len(self.held):
            return None
        if self.whole:
            return self._cards[MODELS]
        target = self._cards[MODELS].fingerprints[0]
        found: dict[int, tuple[str, str]] = {}
        for pool, held in self.held.items():
            card = self._cards[pool]
            own = [proposal_digest(target, f) for f in card.fingerprints] if pool == CHECKPOINTS else None
            found |= dict(
                zip(held.numbers, zip(card.names, own or card.fingerprints, strict=True), strict=True)
            )
        names, fingerprints = zip(*(found[k] for k in sorted(found)), strict=True)
        return LawCard(names, fingerprints, any(card.corrected for card in self._cards.values()))


@dataclass(eq=False)
class Course:
    """A batch on its way: to be drawn, then scored by the workers ``waiting`` says, then judged."""

    batch: Batch
    draws: Draws | None = None
    worker: str = ""
    asked: LookUp | None = None
    """What is known of its answers, where verdicts are kept."""
    waiting: set[Held] = field(default_factory=set)
    over: bool = False
    """It has its outcome; what is still on its way is of no use."""

    @property
    def drawn(self) -> Draws:
        assert self.draws is not None
        return self.draws

    @property
    def to_judge(self) -> list[str]:
        """The answers that the judge is to read."""
        return self.drawn.texts if self.asked is None else self.asked.texts

    def scored(self, held: Held, log_q: FloatArray) -> None:
        """Takes in the columns of the laws that other workers have."""
        self.waiting.discard(held)
        self.draws = self.drawn._replace(log_q=np.where(np.isnan(self.drawn.log_q), log_q, self.drawn.log_q))


def _difference(first: LawCard, second: LawCard) -> str:
    if first.names != second.names:
        return f"{', '.join(first.names)} against {', '.join(second.names)}"
    differ = [
        name
        for name, a, b in zip(first.names, first.fingerprints, second.fingerprints, strict=True)
        if a != b
    ]
    return ", ".join(differ) or "another precision"
