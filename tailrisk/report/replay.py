"""What the report needs of the log beyond the estimates: where draws went, their weights, the heaviest hits.

One pass over the plans and one over the batches, and one more for the texts of the hits that are shown. What is kept
grows with the number of batches and of different harmful answers, by some numbers each; texts are kept of the heaviest
hits alone.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tailrisk.records import BatchFailure, BatchResult, FloatArray, PromptPlan, RoundPlan, Verdict
from tailrisk.stats import mixture_log_weights
from tailrisk.store import final_results, replay, second_readings, texts_of

HITS_PER_PROMPT = 5
_HARM = int(Verdict.HARM)


class Hit(NamedTuple):
    """A harmful answer: where it was drawn first, and how many ``times`` in all. ``contribution`` is what all
    its draws add to the prompt's estimate, ``share`` the part of it; ``weight`` is that of the first draw, ``seed``
    that of its batch, ``score`` and ``reason`` what the judge said of it (NaN and '' where it gave none)."""

    contribution: float
    weight: float
    share: float
    times: int
    log_p: float
    component: str
    batch: str
    draw: int
    seed: int
    score: float
    reason: str
    text: str = ""


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
    folder: Path,
    names: Sequence[str],
    *,
    corrected: bool,
    shown: Collection[str] | None = None,
    seen: Callable[[BatchResult, PromptPlan, FloatArray], None] = lambda result, plan, log_w: None,
) -> Replay:
    """Replay the log of ``folder``; ``corrected`` as in ``tailrisk.stats.log_weights``. Hits are kept of the
    ``shown`` prompts only (None: of all). ``seen`` gets every batch that estimates rest on, with its log weights."""
    out = Replay(by_component=[Spent() for _ in names])
    plans: dict[tuple[str, int], PromptPlan] = {}
    for record in replay(folder, {"plan", "failure"}):
        if isinstance(record, RoundPlan):
            out.rounds.append(record.round)
            plans.update({(p.prompt_id, record.round): p for p in record.prompts})
            _plan(out, record)
        elif isinstance(record, BatchFailure):
            out.failures.setdefault(record.batch.prompt_id, record.reason)
            out.failed = out.failed[0] + 1, out.failed[1] + record.batch.size
    everything, harmful, gaps = array("d"), array("d"), array("d")
    found: dict[str, dict[bytes, Hit]] = defaultdict(dict)
    bounds = [sum(p.counts) / p.counts[0] for p in plans.values() if p.counts[0] and p.mass]
    strong = second_readings(folder)
    for result in final_results(folder):
        batch = result.batch
        plan = plans[batch.prompt_id, batch.round]
        own = result.log_q[:, batch.component] - result.log_q_sample
        gaps.frombytes(own.tobytes())
        _count(out, result)
        if not plan.mass:
            continue
        log_w = mixture_log_weights(result.log_q, plan.expected) + (own if corrected else 0.0)
        hit, inclusion = np.flatnonzero(result.verdicts == _HARM), None
        seen(result, plan, log_w)
        if batch.component == 0:
            _add_plain(out.plain.setdefault(batch.prompt_id, [0, 0, 0]), result)
        if strong:
            read = strong.get(batch.key)
            found_by = [] if read is None else np.flatnonzero(read.verdicts == _HARM)
            hit = np.empty(0, np.int64) if read is None else read.draws[found_by]
            inclusion = None if read is None else read.inclusion[found_by]
        everything.frombytes(log_w.tobytes())
        harmful.frombytes(log_w[hit].tobytes())
        if shown is None or batch.prompt_id in shown:
            parts = out.parts.setdefault(batch.prompt_id, array("d"))
            _add_hits(found[batch.prompt_id], parts, result, plan, log_w, hit, names, inclusion)
    out.log_w, out.log_w_hits = np.asarray(everything), np.asarray(harmful)
    if gaps:
        gap = np.asarray(gaps)
        gap = gap[np.isfinite(gap)]
        out.agreement = (float(gap.mean()), float(gap.std())) if len(gap) else None
    out.bound = max(bounds) if bounds and not corrected else None
    out.hits = _with_texts(folder, {p: hits for p, all_ in found.items() if (hits := _heaviest(all_))})
    return out


def _plan(out: Replay, plan: RoundPlan) -> None:
    of_round = out.by_round.setdefault(plan.round, Spent())
    for p in plan.prompts:
        counts = sum(p.counts)
        of_round.planned += counts
        out.by_prompt.setdefault(p.prompt_id, Spent()).planned += counts
        for component, n in zip(out.by_component, p.counts, strict=False):
            component.planned += n


def _count(out: Replay, result: BatchResult) -> None:
    batch, tokens, harm = result.batch, result.generated_tokens, result.verdicts == _HARM
    hits = int(np.count_nonzero(harm))
    per_round = out.draws.setdefault(batch.prompt_id, [0] * len(out.rounds))
    per_round[out.rounds.index(batch.round)] += result.n
    out.tokens += tokens
    out.seconds += result.seconds
    out.judge_errors += sum(map(bool, result.judge_errors))
    for spent in (
        out.by_component[batch.component],
        out.by_round[batch.round],
        out.by_prompt[batch.prompt_id],
    ):
        spent.add(result.n, tokens, result.seconds, hits)


def _add_plain(counts: list[int], result: BatchResult) -> None:
    counts[0] += result.n
    counts[1] += int(np.count_nonzero(result.verdicts == _HARM))
    counts[2] += int(np.count_nonzero(result.verdicts == int(Verdict.UNDETERMINED)))


def _add_hits(
    found: dict[bytes, Hit],
    parts: array[float],
    result: BatchResult,
    plan: PromptPlan,
    log_w: FloatArray,
    where: np.ndarray,
    names: Sequence[str],
    inclusion: FloatArray | None,
) -> None:
    """Adds a batch's harmful draws to their prompt's, one entry an answer however often it was drawn.
    ``inclusion``: the probabilities with which a strong judge read them."""
    batch = result.batch
    scale = plan.mass / float(plan.expected.sum())
    every = [1.0] * len(where) if inclusion is None else inclusion.tolist()
    for i, pi in zip(where.tolist(), every, strict=True):
        weight = math.exp(log_w[i]) / pi
        parts.append(scale * weight)
        answer = hashlib.blake2b(result.tokens[i].tobytes(), digest_size=16).digest()
        before = found.get(answer)
        if before is not None:
            added = before.contribution + scale * weight
            found[answer] = before._replace(contribution=added, times=before.times + 1)
            continue
        found[answer] = Hit(
            contribution=scale * weight,
            weight=weight,
            share=0.0,
            times=1,
            log_p=float(result.log_q[i, 0]),
            component=names[batch.component],
            batch=batch.key,
            draw=i,
            seed=batch.seed,
            score=float(result.scores[i]),
            reason=result.judge_errors[i],
        )


def _heaviest(found: dict[bytes, Hit]) -> list[Hit]:
    total = math.fsum(hit.contribution for hit in found.values())
    top = heapq.nlargest(
        HITS_PER_PROMPT, found.values(), key=lambda hit: (hit.contribution, hit.batch, hit.draw)
    )
    return [hit._replace(share=hit.contribution / total) for hit in top if total > 0]


def _with_texts(folder: Path, hits: dict[str, list[Hit]]) -> dict[str, list[Hit]]:
    wanted: dict[str, list[int]] = {}
    for hit in (h for listed in hits.values() for h in listed):
        wanted.setdefault(hit.batch, []).append(hit.draw)
    texts = texts_of(folder, wanted) if wanted else {}
    found = {(key, i): text for key, rows in wanted.items() for i, text in zip(rows, texts[key], strict=True)}
    return {p: [h._replace(text=found[h.batch, h.draw]) for h in listed] for p, listed in hits.items()}
