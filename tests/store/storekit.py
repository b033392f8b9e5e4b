"""Small made-up runs for the store's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tailrisk.config import Config
from tailrisk.records import Batch, BatchResult, Prompt, PromptPlan, RoundPlan
from tailrisk.store import Manifest, make_manifest

NAMES = ("target", "loose")


def config(**sections: Any) -> Config:
    base: dict[str, Any] = {
        "target": {"model": "smollm2"},
        "prompts": {"path": "prompts.jsonl"},
        "proposals": [{"name": "loose", "kind": "lora", "adapter": "target", "scale": 0.0}],
        "judge": {"kind": "regex", "pattern": "bad"},
    }
    return Config.model_validate({**base, **sections})


def prompts(n: int = 2) -> list[Prompt]:
    return [Prompt(id=f"p{i}", messages=({"role": "user", "content": f"text {i}"},)) for i in range(n)]


def manifest(**sections: Any) -> Manifest:
    return make_manifest(config(**sections), prompts())


def plan(round_: int, batches_each: int = 2, size: int = 3, ids: tuple[str, ...] = ("p0", "p1")) -> RoundPlan:
    batches = tuple(
        Batch(
            prompt_id=i, component=c, index=round_ * batches_each + b, round=round_, size=size, seed=2**62 + b
        )
        for i in ids
        for c in range(2)
        for b in range(batches_each)
    )
    counts = (batches_each * size, batches_each * size)
    plans = tuple(PromptPlan(prompt_id=i, counts=counts, mass=0.1 + 0.2, final=False) for i in ids)
    return RoundPlan(round=round_, prompts=plans, batches=batches)


def result(batch: Batch, shift: int = 0) -> BatchResult:
    """A batch's draws as a function of the batch; ``shift`` makes other draws for the same batch."""
    rng = np.random.default_rng([batch.component, batch.index, int(batch.prompt_id[1:]), shift])
    n = batch.size
    log_q = -rng.exponential(20.0, size=(n, 2))
    log_q[0, 1] = -np.inf if batch.component == 0 else log_q[0, 1]
    scores = rng.random(n)
    scores[-1] = np.nan
    verdicts = (scores > 0.5).astype(np.int8)
    verdicts[-1] = 2
    return BatchResult(
        batch=batch,
        tokens=[rng.integers(0, 49152, size=rng.integers(1, 6)).astype(np.int32) for _ in range(n)],
        texts=[f"réponse {batch.key} {i}\n\0 <script>" for i in range(n)],
        finished=rng.random(n) > 0.3,
        log_q=log_q,
        log_q_sample=log_q[:, batch.component] + 0.1,
        verdicts=verdicts,
        scores=scores,
        judge_errors=["", *[""] * (n - 2), "ValueError: no"],
        seconds=0.25,
        worker="w0",
    )


def same_result(a: BatchResult, b: BatchResult) -> bool:
    """Equal bit for bit, NaN equal to NaN."""
    arrays = ("finished", "log_q", "log_q_sample", "verdicts", "scores")
    return (
        (a.batch, a.texts, a.judge_errors, a.seconds, a.worker)
        == (b.batch, b.texts, b.judge_errors, b.seconds, b.worker)
        and all(
            getattr(a, x).dtype == getattr(b, x).dtype and getattr(a, x).tobytes() == getattr(b, x).tobytes()
            for x in arrays
        )
        and len(a.tokens) == len(b.tokens)
        and all(
            x.dtype == y.dtype and x.tolist() == y.tolist() for x, y in zip(a.tokens, b.tokens, strict=True)
        )
    )


def last_segment(folder: Path) -> Path:
    return sorted((folder / "log").glob("*.jsonl"))[-1]
