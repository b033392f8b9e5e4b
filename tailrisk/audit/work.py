"""The work on one batch, the same in this process and in a worker of a cluster: draw, score, check, judge.

``draw_batch`` needs the laws only and ``judge_texts`` the judge only, so the two may live in different
processes; ``join`` puts their answers together. Numbers that cannot be right (NaN, +inf, a draw that its own
component calls impossible) end here as ``ModelError`` and never reach the log.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrisk.audit.protocols import Judge, Laws
from tailrisk.audit.verdictcache import VerdictCache
from tailrisk.errors import ModelError
from tailrisk.records import Batch, BatchFailure, BatchResult, FloatArray, JudgedTexts, Prompt, Verdict


class Draws(NamedTuple):
    """A batch after drawing and scoring, before judging; fields as in ``BatchResult``."""

    batch: Batch
    tokens: list[NDArray[np.int32]]
    texts: list[str]
    finished: NDArray[np.bool_]
    log_q: FloatArray
    log_q_sample: FloatArray
    seconds: float


class Held(NamedTuple):
    """Which of an audit's ``total`` laws a worker has, by their numbers in the audit."""

    numbers: tuple[int, ...]
    total: int

    @classmethod
    def all_of(cls, laws: Laws) -> Held:
        return cls(tuple(range(len(laws.names))), len(laws.names))


def draw_batch(laws: Laws, prompt: Prompt, batch: Batch) -> Draws:
    """Draws ``batch.size`` responses of one component and scores them under ``batch.components``; the columns
    of the others are NaN.

    Raises ModelError if the laws break their contract or give numbers that cannot be right.
    """
    draws = draw_part(laws, prompt, batch, Held.all_of(laws))
    check_draws(draws, laws.names)
    return draws


def draw_part(laws: Laws, prompt: Prompt, batch: Batch, held: Held) -> Draws:
    """The same where ``laws`` are those of ``held`` only: the columns of others are NaN, and nothing is checked but
    shapes of scores."""
    began = time.perf_counter()
    samples = laws.sample(prompt, held.numbers.index(batch.component), batch.size, batch.seed)
    log_q = score(laws, prompt, samples.tokens, batch, held)
    return Draws(
        batch=batch,
        tokens=[np.asarray(t, dtype=np.int32) for t in samples.tokens],
        texts=laws.texts(samples.tokens),
        finished=np.asarray(samples.finished, dtype=np.bool_),
        log_q=log_q,
        log_q_sample=np.asarray(samples.log_q, dtype=np.float64),
        seconds=time.perf_counter() - began,
    )


def score(
    laws: Laws, prompt: Prompt, tokens: Sequence[NDArray[np.int32]], batch: Batch, held: Held
) -> FloatArray:
    """[n, total] scores of the batch's ``tokens`` under those of its components that are held, the columns of the
    others NaN.

    Raises ModelError if the laws answer with another shape.
    """
    asked = batch.components
    mine = [k for k in held.numbers if asked is None or k in asked]
    out = np.full((len(tokens), held.total), np.nan)
    if not mine:
        return out
    local = None if len(mine) == len(laws.names) else [held.numbers.index(k) for k in mine]
    scored = np.asarray(laws.log_prob(prompt, tokens, local), dtype=np.float64)
    if scored.shape != (len(tokens), len(mine)):
        raise ModelError(
            f"batch {batch.key}: scores of {len(tokens)} draws under components {mine} of those asked for have "
            f"shape {scored.shape}"
        )
    out[:, mine] = scored
    return out


def check_draws(draws: Draws, names: Sequence[str]) -> None:
    """Raises ModelError unless shapes agree and every number may enter the log."""
    batch = draws.batch
    where = f"batch {batch.key} (component {names[batch.component]!r})"
    sizes = {
        "responses": len(draws.tokens),
        "texts": len(draws.texts),
        "stop flags": len(draws.finished),
        "sampling log-probabilities": len(draws.log_q_sample),
        "scored log-probabilities": len(draws.log_q),
    }
    for what, n in sizes.items():
        if n != batch.size:
            raise ModelError(f"{where}: {batch.size} draws were asked for, the laws gave {n} {what}")
    if draws.log_q.shape != (batch.size, len(names)):
        raise ModelError(
            f"{where}: scores have shape {draws.log_q.shape}, expected {(batch.size, len(names))}"
        )
    if any(len(t) == 0 for t in draws.tokens):
        raise ModelError(f"{where}: a response without a single token")
    if not np.isfinite(draws.log_q_sample).all():
        i = int(np.flatnonzero(~np.isfinite(draws.log_q_sample))[0])
        raise ModelError(
            f"{where}: draw {i} has the log-probability {draws.log_q_sample[i]} in the pass that sampled it"
        )
    bad = np.isnan(draws.log_q) | (draws.log_q == np.inf)
    if batch.components is not None:
        left_out = np.setdiff1d(np.arange(len(names)), batch.components)
        bad[:, left_out] = ~np.isnan(draws.log_q[:, left_out])
    if bad.any():
        i, k = (int(x) for x in np.argwhere(bad)[0])
        raise ModelError(
            f"{where}: draw {i} has the log-probability {draws.log_q[i, k]} under {names[k]!r}; "
            "the model's outputs are not finite (try dtype: float32)"
        )
    own = draws.log_q[:, batch.component]
    if np.isneginf(own).any():
        i = int(np.flatnonzero(np.isneginf(own))[0])
        raise ModelError(f"{where}: draw {i} is impossible under the component that drew it, when scored")


def judge_texts(judge: Judge, prompt: Prompt, texts: Sequence[str], *, caught: bool = True) -> JudgedTexts:
    """The judge's verdicts; undetermined, with the reason, where the judge raises or breaks its contract (not
    ``caught``: it raises)."""
    n = len(texts)
    try:
        judged = judge.judge(prompt.text, texts)
        verdicts = np.asarray(judged.verdicts, dtype=np.int8)
        scores = np.asarray(judged.scores, dtype=np.float64)
        errors = [str(e) for e in judged.errors]
        if not (verdicts.shape == scores.shape == (n,) and len(errors) == n):
            raise ValueError(f"{n} answers were given to the judge, {verdicts.shape} verdicts came back")
        if not np.isin(verdicts, [int(v) for v in Verdict]).all():
            raise ValueError("a verdict that is none of 0 (safe), 1 (harm), 2 (undetermined)")
    except Exception as error:  # a judge is the user's code: whatever it raises is an answer not judged
        if not caught:
            raise
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return JudgedTexts.unjudged(n, reason)
    return JudgedTexts(verdicts, scores, errors)


def join(draws: Draws, judged: JudgedTexts, *, seconds: float | None = None, worker: str = "") -> BatchResult:
    """A finished batch. ``seconds`` defaults to the time of drawing."""
    return BatchResult(
        batch=draws.batch,
        tokens=draws.tokens,
        texts=draws.texts,
        finished=draws.finished,
        log_q=draws.log_q,
        log_q_sample=draws.log_q_sample,
        verdicts=judged.verdicts,
        scores=judged.scores,
        judge_errors=judged.errors,
        judge_calls=judged.calls,
        seconds=draws.seconds if seconds is None else seconds,
        worker=worker,
    )


def judge_new(judge: Judge, prompt: Prompt, texts: Sequence[str], cache: VerdictCache | None) -> JudgedTexts:
    """The same, where the judge reads only what is not in ``cache``."""
    if cache is None:
        return judge_texts(judge, prompt, texts)
    asked = cache.look_up(prompt.text, texts)
    return cache.settle(asked, judge_texts(judge, prompt, asked.texts) if asked.texts else None)


def run_batch(
    laws: Laws,
    judge: Judge,
    prompt: Prompt,
    batch: Batch,
    *,
    worker: str = "",
    cache: VerdictCache | None = None,
) -> BatchResult | BatchFailure:
    """Both steps in one process. A ``ModelError`` while drawing is a failure of this batch alone."""
    try:
        draws = draw_batch(laws, prompt, batch)
    except ModelError as error:
        return BatchFailure(batch=batch, reason=str(error))
    return join(draws, judge_new(judge, prompt, draws.texts, cache), worker=worker)
