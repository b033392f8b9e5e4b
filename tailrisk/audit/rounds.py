"""One prompt's draws in one round, as the driver keeps them: numbers only, in a few arrays a round.

Ten million draws fit because nothing is kept a draw but its log-probabilities and its verdict, and nothing a batch
but its size, its tokens and its seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.audit.readers import Reading, Second
from tailrisk.records import FloatArray, PromptPlan
from tailrisk.stats import RoundDraws


class BatchNumbers(NamedTuple):
    """What the driver keeps of a batch of n draws."""

    log_q: FloatArray
    log_q_sample: FloatArray
    verdicts: NDArray[np.int8]
    tokens: int
    seconds: float


class _Columns(NamedTuple):
    """A complete round of n draws in b batches, all columns in the order of (component, batch index)."""

    keys: tuple[tuple[int, int], ...]
    sizes: tuple[int, ...]
    tokens: tuple[int, ...]
    seconds: tuple[float, ...]
    log_q: FloatArray
    log_q_sample: FloatArray
    verdicts: NDArray[np.int8]

    @classmethod
    def of(cls, batches: dict[tuple[int, int], BatchNumbers]) -> _Columns:
        keys = tuple(sorted(batches))
        parts = [batches[key] for key in keys]
        return cls(
            keys,
            tuple(len(b.verdicts) for b in parts),
            tuple(b.tokens for b in parts),
            tuple(b.seconds for b in parts),
            np.concatenate([b.log_q for b in parts]),
            np.concatenate([b.log_q_sample for b in parts]),
            np.concatenate([b.verdicts for b in parts]),
        )

    def rows(self, i: int) -> slice:
        """Where batch number ``i`` is."""
        start = sum(self.sizes[:i])
        return slice(start, start + self.sizes[i])

    def numbers(self) -> Iterator[tuple[int, BatchNumbers]]:
        start = 0
        for (component, _), size, tokens, seconds in zip(
            self.keys, self.sizes, self.tokens, self.seconds, strict=True
        ):
            rows = slice(start, start + size)
            start += size
            yield (
                component,
                BatchNumbers(self.log_q[rows], self.log_q_sample[rows], self.verdicts[rows], tokens, seconds),
            )


class PromptRound:
    """One prompt's part of one round. Its batches are kept one by one until the last is there, then as columns:
    a few arrays a round in the place of a few a batch."""

    __slots__ = ("_arrived", "_columns", "_second", "_waiting", "plan", "review", "round", "strong")

    def __init__(self, number: int, plan: PromptPlan, second: Second | None = None) -> None:
        self.round = number
        self.plan = plan
        self.strong: Reading | None = None
        """The strong judge's sample, once it is chosen."""
        self.review: Reading | None = None
        self._second = second if plan.mass > 0 else None
        self._waiting: set[tuple[int, int]] | None = set()
        self._arrived: dict[tuple[int, int], BatchNumbers] | None = {}
        self._columns: _Columns | None = None

    def expect(self, component: int, index: int) -> None:
        """A batch of the plan."""
        assert self._waiting is not None, "the plan is complete before the first batch arrives"
        self._waiting.add((component, index))

    def add(self, component: int, index: int, numbers: BatchNumbers) -> None:
        assert self._waiting is not None and self._arrived is not None, "the round is complete already"
        self._waiting.discard((component, index))
        self._arrived[component, index] = numbers
        if not self._waiting:
            self._columns = _Columns.of(self._arrived)
            self._waiting = self._arrived = None

    def judge(self, component: int, index: int, verdicts: NDArray[np.int8]) -> bool:
        """Replaces the verdicts of a batch that arrived; False if it is not of this round."""
        key = component, index
        if self._columns is not None:
            if key not in self._columns.keys:
                return False
            self._columns.verdicts[self._columns.rows(self._columns.keys.index(key))] = verdicts
            return True
        assert self._arrived is not None
        if key not in self._arrived:
            return False
        self._arrived[key] = self._arrived[key]._replace(verdicts=verdicts)
        return True

    @property
    def complete(self) -> bool:
        return self._columns is not None

    @property
    def settled(self) -> bool:
        """Complete, and a strong judge, where there is one, has read its sample."""
        return self.complete and (self._second is None or (self.strong is not None and self.strong.told()))

    @property
    def unread(self) -> bool:
        """Complete, and the strong judge's sample is not chosen."""
        return self.complete and self._second is not None and self.strong is None

    def places(self, rows: Sequence[int]) -> list[tuple[str, int]]:
        """("component/batch", draw) of these rows of a complete round."""
        assert self._columns is not None
        keys, starts = self._columns.keys, np.cumsum([0, *self._columns.sizes])
        batches = np.searchsorted(starts, np.asarray(rows, dtype=np.int64), side="right") - 1
        return [
            (f"{keys[b][0]}/{keys[b][1]}", int(row - starts[b]))
            for row, b in zip(rows, batches.tolist(), strict=True)
        ]

    def batch_rows(self) -> Iterator[tuple[tuple[int, int], slice]]:
        """((component, batch), its rows) of a complete round."""
        assert self._columns is not None
        for i, key in enumerate(self._columns.keys):
            yield key, self._columns.rows(i)

    @property
    def n(self) -> int:
        """Draws that arrived."""
        if self._columns is not None:
            return sum(self._columns.sizes)
        return sum(len(b.verdicts) for b in (self._arrived or {}).values())

    @property
    def tokens(self) -> int:
        """Tokens of the draws that arrived."""
        if self._columns is not None:
            return sum(self._columns.tokens)
        return sum(b.tokens for b in (self._arrived or {}).values())

    def numbers(self) -> Iterator[tuple[int, BatchNumbers]]:
        """(component, numbers) of every batch that arrived, by component and index."""
        if self._columns is not None:
            yield from self._columns.numbers()
        else:
            for key, numbers in sorted((self._arrived or {}).items(), key=lambda item: item[0]):
                yield key[0], numbers

    def draws(self) -> RoundDraws:
        """All draws of a complete round, in the order of (component, batch index).

        Of the plan's components alone: columns that were not scored do not reach the statistics.
        """
        assert self._columns is not None, "batches of this round are missing"
        columns = self._columns
        draws = RoundDraws(
            counts=np.asarray(self.plan.counts, dtype=np.int64),
            mass=self.plan.mass,
            component=np.repeat(np.array([k for k, _ in columns.keys], dtype=np.int64), columns.sizes),
            log_q=columns.log_q,
            log_q_sample=columns.log_q_sample,
            verdict=columns.verdicts,
            faded=None if self.plan.faded is None else np.asarray(self.plan.faded, dtype=np.float64),
        )
        if self.plan.components is not None:
            draws = draws.under(self.plan.components)
        if self._second is None or self.strong is None:
            return draws
        return draws._replace(strong=self.strong.sample(draws, corrected=self._second.corrected))
