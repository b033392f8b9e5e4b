"""The seams of the driver: what it needs of laws, judges and executors, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tailrisk.records import (
    Batch,
    BatchFailure,
    BatchResult,
    FloatArray,
    JudgedTexts,
    Prompt,
    RoundPlan,
    Samples,
)

if TYPE_CHECKING:
    from tailrisk.audit.outcome import AuditOutcome
    from tailrisk.audit.state import AuditState
    from tailrisk.audit.verdictcache import VerdictCache
    from tailrisk.stats import Estimate


class Laws(Protocol):
    """The target (component 0) and its proposals, as laws over whole responses."""

    names: tuple[str, ...]
    fingerprints: tuple[str, ...]
    corrected: bool
    """True where sampling and scoring differ measurably (half precision): draws then carry the ratio."""

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        """n independent draws of one component; the same arguments give the same tokens."""
        ...

    def log_prob(
        self,
        prompt: Prompt,
        tokens: Sequence[NDArray[np.int32]],
        components: Sequence[int] | None = None,
    ) -> FloatArray:
        """[n, S] log-probabilities of whole responses under ``components`` in their order (None: all K),
        ``-inf`` where impossible. A component's column does not depend on which others are asked for."""
        ...

    def texts(self, tokens: Sequence[NDArray[np.int32]]) -> list[str]:
        """Responses as text, special tokens left out."""
        ...


class LawCard(NamedTuple):
    """What the driver must know of the laws, without holding them."""

    names: tuple[str, ...]
    fingerprints: tuple[str, ...]
    corrected: bool

    @classmethod
    def of(cls, laws: Laws) -> LawCard:
        return cls(tuple(laws.names), tuple(laws.fingerprints), bool(laws.corrected))


class Processor(NamedTuple):
    """What computes a worker's numbers. ``pool``: whose laws it has; ``kind`` as ``models.processors`` names it."""

    pool: str
    kind: str


UNKNOWN = Processor("", "")


@runtime_checkable
class Computed(Protocol):
    """Laws that are computed in a way that depends on the kind of processor; exact tables do not."""

    processor: str


def processor_of(laws: Laws) -> str:
    """The kind that computes ``laws``, '' where that does not matter."""
    return laws.processor if isinstance(laws, Computed) else ""


class Judge(Protocol):
    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        """Verdicts for the answers to one prompt; a judge that fails on an answer says so in ``errors``."""
        ...


class Executor(Protocol):
    """Runs batches somewhere (in this process, on a Ray cluster), each exactly as planned."""

    def run(self, batches: Iterable[Batch]) -> Iterator[BatchResult | BatchFailure]:
        """Yields one outcome a batch, in any order; a retried batch is the same batch."""
        ...

    def rejudge(self, prompt_id: str, texts: Sequence[str]) -> JudgedTexts:
        """Verdicts for answers that were drawn earlier and could not be judged then."""
        ...

    def judge_strongly(
        self, answers: Sequence[tuple[str, Sequence[str]]]
    ) -> Iterator[tuple[int, JudgedTexts]]:
        """The strong judge's verdicts on answers to prompts, by their place in ``answers``, in any order."""
        ...

    def close(self) -> None: ...


class AnswersToJudge(NamedTuple):
    """Answers to one prompt that a judge is to read; ``key`` names them."""

    key: str
    prompt_id: str
    texts: Sequence[str]


class JudgeWorkers(Protocol):
    """Judges answers somewhere, with nothing to draw from."""

    def judge_all(self, asked: Iterable[AnswersToJudge]) -> Iterator[tuple[AnswersToJudge, JudgedTexts]]:
        """Verdicts for each item, in any order; items are taken as there is room. Answers that cannot be judged are
        undetermined, with the reason."""
        ...


class PoolStatus(NamedTuple):
    """Workers of one role by stage: ``placing`` (wait for a node), ``building`` (load), ``ready``; calls that wait for
    a worker and calls that are with one; what went wrong so far."""

    name: str
    placing: int
    building: int
    ready: int
    waiting: int
    running: int
    retries: int
    preemptions: int

    @property
    def workers(self) -> int:
        return self.placing + self.building + self.ready


class ClusterStatus(NamedTuple):
    """``pools``: that of the models first, then that of the judges."""

    nodes: int
    pools: tuple[PoolStatus, ...]


@runtime_checkable
class Watched(Protocol):
    """An executor whose cluster can be watched."""

    def watch(self, watcher: Callable[[ClusterStatus], None]) -> None:
        """Tell ``watcher`` of the cluster about once a second, from the driver's thread, while batches run."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """An executor that can keep verdicts, so that its judge reads an answer once."""

    cache: VerdictCache | None


@runtime_checkable
class KnowsProcessors(Protocol):
    """An executor that can tell what its workers run on, by ``BatchResult.worker``."""

    processors: Mapping[str, Processor]


class Running(Protocol):
    """Something that is being computed by another process."""

    @property
    def done(self) -> bool:
        """Whether ``value`` would not wait."""
        ...

    def value(self) -> Any:
        """What came out; raises where it raised, and where the process ended."""
        ...


class Beside(Protocol):
    """A process beside the driver that computes for it."""

    def start(self, function: Callable[[Any], Any], argument: Any) -> Running:
        """``function`` of ``argument``, both picklable; what is started first is computed first."""
        ...


@runtime_checkable
class Helped(Protocol):
    """An executor that has such a process, or makes one when it is first asked."""

    beside: Beside


class Observer(Protocol):
    """Watches an audit (terminal table, tracking). Called from the driver's thread, between its steps.

    An observer that raises an ``Exception`` is logged and left out from then on; it cannot end the audit.
    Inherit from ``Silent`` to write only the methods that matter.
    """

    def round_started(self, plan: RoundPlan) -> None: ...

    def batch_done(self, outcome: BatchResult | BatchFailure) -> None: ...

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        """Once a round, and once at the start of a resumed run for its last finished round.

        ``state.round`` is the round that ended; ``estimates`` are in the order of the prompts.
        """
        ...

    def strong_started(self, round: int, answers: int) -> None:
        """The strong judge is about to read so many answers of a round, before it is finished."""
        ...

    def finished(self, outcome: AuditOutcome) -> None: ...


class Silent:
    """An observer that does nothing."""

    def round_started(self, plan: RoundPlan) -> None:
        pass

    def batch_done(self, outcome: BatchResult | BatchFailure) -> None:
        pass

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        pass

    def strong_started(self, round: int, answers: int) -> None:
        pass

    def finished(self, outcome: AuditOutcome) -> None:
        pass
