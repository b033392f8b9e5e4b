"""What the report needs of the log beyond the estimates: where draws went, their weights, the heaviest hits.

One pass over the plans and one over the batches, and one more for the texts of the hits that are shown. What is kept
grows with the number of batches and of different harmful answers, by some numbers each; texts are kept of the heaviest
hits alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tailrisk.records import BatchFailure, FloatArray, RoundPlan, Verdict
from tailrisk.report.heaviest import Answers, Hit, with_texts
from tailrisk.report.weighed import Expected, Weighed
from tailrisk.stats import mixture_log_weights
from tailrisk.store import CheckedLog, LoggedNumbers, final_numbers, replay, second_readings

_HARM = int(Verdict.HARM)


@dataclass(slots=True)
class Spent:
    """Draws that were ``planned``, and what was spent: draws, generated tokens, seconds in workers, hits found."""

    planned: int = 0
    draws: int = 0
    tokens: int = 0
    seconds: float = 0.0
    hits: int = 0

    def add(self, draws: int, tokens: int, seconds: float, hits: int) -> None:
        self.draws += draws
        self.tokens += tokens
        self.seconds += seconds
        self.hits += hits


@dataclass
class Replay:
    """``draws[prompt][r]``: draws in round r of ``rounds``; ``log_w``: natural-log weights of all draws that
    estimates rest on, ``log_w_hits`` of the harmful ones; ``bound``: the largest weight an uncorrected draw
    can have (None with correction); ``agreement``: mean and standard deviation of scored minus sampled
    log-probability. ``plain[prompt]``: the target's own draws that the estimate rests on, those harmful to the judge
    that reads all, and those it could not judge. ``parts[prompt]``: what each hit adds to the estimate, of the shown
    prompts. ``failed``: batches that failed, and their draws."""

    rounds: list[int] = field(default_factory=list)
    draws: dict[str, list[int]] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    log_w: FloatArray = field(default_factory=lambda: np.empty(0))
    log_w_hits: FloatArray = field(default_factory=lambda: np.empty(0))
    bound: float | None = None
    agreement: tuple[float, float] | None = None
    hits: dict[str, list[Hit]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    judge_errors: int = 0
    plain: dict[str, list[int]] = field(default_factory=dict)
    parts: dict[str, array[float]] = field(default_factory=dict)
    by_component: list[Spent] = field(default_factory=list)
    by_round: dict[int, Spent] = field(default_factory=dict)
    by_prompt: dict[str, Spent] = field(default_factory=dict)
    failed: tuple[int, int] = (0, 0)


def read(
    source: Path | CheckedLog,
    names: Sequence[str],
    *,
    corrected: bool,
    shown: Collection[str] | None = None,
    seen: Callable[[Weighed], None] = lambda weighed: None,
) -> Replay:
    """Replay the log of a run folder; ``corrected`` as in ``tailrisk.stats.log_weights``. Hits are kept of the
    ``shown`` prompts only (None: of all). ``seen`` gets every batch that estimates rest on."""
    log = CheckedLog.of(source)
    out = Replay(by_component=[Spent() for _ in names])
    plans: dict[tuple[str, int], Expected] = {}
    for record in replay(log, {"plan", "failure"}):
        if isinstance(record, RoundPlan):
            out.rounds.append(record.round)
            plans.update({(p.prompt_id, record.round): Expected.of(p) for p in record.prompts})
            _plan(out, record)
        elif isinstance(record, BatchFailure):
            out.failures.setdefault(record.batch.prompt_id, record.reason)
            out.failed = out.failed[0] + 1, out.failed[1] + record.batch.size
    everything, harmful, gaps = array("d"), array("d"), array("d")
    found: dict[str, Answers] = {}
    bounds = [
        sum(e.plan.counts) / e.plan.counts[0] for e in plans.values() if e.plan.counts[0] and e.plan.mass
    ]
    strong = second_readings(log)
    places = {round_: i for i, round_ in enumerate(out.rounds)}
    for result in final_numbers(log):
        batch = result.batch
        expected = plans[batch.prompt_id, batch.round]
        own = result.log_q[:, batch.component] - result.log_q_sample
        gaps.frombytes(own.tobytes())
        harm = np.flatnonzero(result.verdicts == _HARM)
        _count(out, result, len(harm), places)
        if not expected.plan.mass:
            continue
        log_w = mixture_log_weights(result.log_q, expected.draws) + (own if corrected else 0.0)
        seen(Weighed(result, expected.plan, log_w, harm))
        if batch.component == 0:
            _add_plain(out.plain.setdefault(batch.prompt_id, [0, 0, 0]), result, len(harm))
        hit, inclusion = harm, None
        if strong:
            told = strong.get(batch.key)
            found_by = [] if told is None else np.flatnonzero(told.verdicts == _HARM)
            hit = np.empty(0, np.int64) if told is None else told.draws[found_by]
            inclusion = None if told is None else told.inclusion[found_by]
        everything.frombytes(log_w.tobytes())
        if shown is None or batch.prompt_id in shown:
            answers = found.get(batch.prompt_id)
            if answers is None:
                answers = found[batch.prompt_id] = Answers()
                out.parts[batch.prompt_id] = answers.parts
            if len(hit):
                answers.add(result, expected.scale, log_w[hit], hit, names, inclusion)
        if len(hit):
            harmful.frombytes(log_w[hit].tobytes())
    out.log_w, out.log_w_hits = np.asarray(everything), np.asarray(harmful)
    if gaps:
        gap = np.asarray(gaps)
        gap = gap[np.isfinite(gap)]
        out.agreement = (float(gap.mean()), float(gap.std())) if len(gap) else None
    out.bound = max(bounds) if bounds and not corrected else None
    out.hits = with_texts(log, {p: hits for p, answers in found.items() if (hits := answers.heaviest())})
    return out


def _plan(out: Replay, plan: RoundPlan) -> None:
    of_round = out.by_round.setdefault(plan.round, Spent())
    for p in plan.prompts:
        counts = sum(p.counts)
        of_round.planned += counts
        out.by_prompt.setdefault(p.prompt_id, Spent()).planned += counts
        for component, n in zip(out.by_component, p.counts, strict=False):
            component.planned += n


def _count(out: Replay, result: LoggedNumbers, hits: int, places: Mapping[int, int]) -> None:
    """``places``: of the rounds, by their numbers."""
    batch, n, tokens, seconds = result.batch, result.n, result.generated_tokens, result.seconds
    per_round = out.draws.get(batch.prompt_id)
    if per_round is None:
        per_round = out.draws[batch.prompt_id] = [0] * len(places)
    per_round[places[batch.round]] += n
    out.tokens += tokens
    out.seconds += seconds
    out.judge_errors += n - result.judge_errors.count("")
    out.by_component[batch.component].add(n, tokens, seconds, hits)
    out.by_round[batch.round].add(n, tokens, seconds, hits)
    out.by_prompt[batch.prompt_id].add(n, tokens, seconds, hits)


def _add_plain(counts: list[int], result: LoggedNumbers, hits: int) -> None:
    counts[0] += result.n
    counts[1] += hits
    counts[2] += int(np.count_nonzero(result.verdicts == int(Verdict.UNDETERMINED)))
