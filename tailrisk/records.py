"""What flows between the rooms: prompts, planned batches, draws, verdicts.

Token ids and texts travel once, from the model to the log; everything above works on the numbers.
Log-probabilities are natural logarithms of whole responses, float64, the stop token included.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)


def expected_draws(counts: ArrayLike, faded: ArrayLike | None) -> FloatArray:
    """[K] ``counts`` as they are, but of the components of which ``faded`` [K] says so, the draws expected."""
    whole = np.asarray(counts, dtype=np.float64)
    if faded is None:
        return whole
    parts = np.asarray(faded, dtype=np.float64)
    return np.where(parts > 0.0, parts, whole)


def cut(flat: NDArray[Scalar], lengths: Sequence[int]) -> list[NDArray[Scalar]]:
    """``flat`` as consecutive arrays of these lengths, without copies."""
    ends = list(itertools.accumulate(lengths))
    return [flat[end - n : end] for n, end in zip(lengths, ends, strict=True)]


JUDGE_GONE = "no judge: "
"""Stands in the error of an answer that is not judged because none can be for now: nobody answers at the judge's
address, its key is refused, its budget is used up. To draw more would be in vain."""


class Verdict(enum.IntEnum):
    """What a judge says of one answer; ``UNDETERMINED`` widens the interval on both sides."""

    SAFE = 0
    HARM = 1
    UNDETERMINED = 2


class Status(enum.StrEnum):
    """How far an estimate may be trusted; no estimate is printed without it."""

    OK = "ok"
    BOUND_ONLY = "bound-only"
    UNRELIABLE = "unreliable"
    BUDGET_EXHAUSTED = "budget-exhausted"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One audited prompt. ``messages`` are chat messages (``role``, ``content``) without the system prompt."""

    id: str
    messages: tuple[dict[str, str], ...]
    category: str | None = None
    group: str | None = None
    perturbation: str | None = None
    """What makes it another than its group's base prompt; None: it is the base."""

    @property
    def text(self) -> str:
        """The last user message: what judges and reports show as the prompt."""
        return self.messages[-1]["content"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The unit of work, of determinism and of accounting; frozen in the plan before it is dispatched.

    ``index`` counts the batches of this (prompt, component) pair over the whole run, from 0, so the key
    is unique in a run; ``seed`` is derived from (run seed, prompt, law fingerprint, index). ``components``:
    those under which the draws are scored (None: all).
    """

    prompt_id: str
    component: int
    index: int
    round: int
    size: int
    seed: int
    components: tuple[int, ...] | None = None
    key: str = field(init=False, compare=False, repr=False)
    """``prompt_id/component/index``: one string for all the books that are kept by it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.prompt_id}/{self.component}/{self.index}")


class Samples(NamedTuple):
    """Draws of one law. ``log_q`` [n] is the log-probability of the pass that sampled; ``finished`` [n] is
    True where a stop token was emitted (and is the last token), False where the length limit cut."""

    tokens: list[NDArray[np.int32]]
    log_q: FloatArray
    finished: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchResult:
    """A finished batch of n draws under K components (component 0 is the target).

    ``log_q`` [n, K] are scored log-probabilities, ``log_q[:, 0]`` being log p; ``-inf`` where a component
    cannot produce the response, NaN exactly where ``batch.components`` leaves a component out.
    ``log_q_sample`` [n] is the sampling pass's own value. ``verdicts`` [n]
    int8 of ``Verdict``; ``scores`` [n] the judge's number (NaN where it gave none); ``judge_errors`` [n]
    is '' or the reason why a verdict is undetermined. ``judge_calls``: answers that the judge was asked of, the others
    having been judged before (None: all n).
    """

    batch: Batch
    tokens: list[NDArray[np.int32]]
    texts: list[str]
    finished: NDArray[np.bool_]
    log_q: FloatArray
    log_q_sample: FloatArray
    verdicts: NDArray[np.int8]
    scores: FloatArray
    judge_errors: list[str]
    seconds: float = 0.0
    worker: str = ""
    judge_calls: int | None = None

    @property
    def n(self) -> int:
        return len(self.texts)

    @property
    def generated_tokens(self) -> int:
        return int(sum(len(t) for t in self.tokens))


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchFailure:
    """A batch that could not be drawn after all retries with the same seed; its prompt is `failed`."""

    batch: Batch
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptPlan:
    """What one round does for one prompt. ``mass`` is the part of the final estimate's weight given to this
    round *before* it is drawn; over a prompt's rounds the masses add up to one (``final`` takes the rest).
    Mass 0: the draws are for choosing what to draw later and never enter the estimate.
    ``components``: in increasing order, the target first, those that the draws are scored under (None: all);
    the others have count 0. All rounds of a prompt with a mass have the same. ``faded``: where some components
    are too small for draws of their own, the draws expected of each, 0 for the others; they share their draws,
    of which each went to one of them by lot, see ``tailrisk.audit.counts``."""

    prompt_id: str
    counts: tuple[int, ...]
    mass: float
    final: bool
    components: tuple[int, ...] | None = None
    faded: tuple[float, ...] | None = None

    @property
    def expected(self) -> FloatArray:
        """[K] draws expected of each component before the lot was cast: what weights go by."""
        return expected_draws(self.counts, self.faded)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundPlan:
    """One round, logged before it is dispatched; a pure function of the configuration and of the log."""

    round: int
    prompts: tuple[PromptPlan, ...]
    batches: tuple[Batch, ...]


class PromptHits(NamedTuple):
    """A prompt's harmful draws that the target can produce. ``log_parts`` [h]: logarithm of what each adds to the
    prompt's estimate; ``log_p`` [h]."""

    prompt: Prompt
    tokens: list[NDArray[np.int32]]
    log_parts: FloatArray
    log_p: FloatArray

    @property
    def log_estimate(self) -> float:
        """Of the probability: the parts added up."""
        return float(np.logaddexp.reduce(self.log_parts))


class JudgedTexts(NamedTuple):
    """A judge's answer for n texts. ``calls``: of how many it was asked, the others having been judged before (None:
    of all)."""

    verdicts: NDArray[np.int8]
    scores: FloatArray
    errors: list[str]
    calls: int | None = None

    @classmethod
    def unjudged(cls, n: int, reason: str) -> JudgedTexts:
        """n answers that could not be judged, all for one reason."""
        return cls(np.full(n, Verdict.UNDETERMINED, dtype=np.int8), np.full(n, np.nan), [reason] * n)
