"""A run folder without models: exact table laws, drawn with numpy, written through the real store.

Every prompt has ``ANSWERS`` possible answers; the first forty are harmful with total probability
``probability`` under the target and much more under the proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tailrisk.config import Config
from tailrisk.records import Batch, BatchFailure, BatchResult, Prompt, PromptPlan, RoundPlan
from tailrisk.store import RunStore, make_manifest, write_hits, write_json_atomic

ANSWERS, HARMFUL = 200, 40
NAMES = ("target", "rude", "sure")


class Case(NamedTuple):
    """One prompt of the fake run. ``tilt`` 0 gives proposals that never find harm."""

    id: str
    probability: float
    category: str | None = "misc"
    tilt: float = 0.5
    fails: bool = False


CASES = (
    Case("frequent", 0.05, "everyday"),
    Case("rare", 1e-3, "medicine"),
    Case("rarer", 1e-5, "chemistry"),
    Case("none-seen", 1e-9, "law", tilt=0.0),
    Case("broken", 1e-2, "law", fails=True),
)


def config(folder: Path, **changes: Any) -> Config:
    data: dict[str, Any] = {
        "run": {"name": folder.name, "dir": str(folder.parent), "seed": 3},
        "target": {"model": "toy", "dtype": "float32", "sampling": {"max_new_tokens": 4}},
        "prompts": {"path": "prompts.jsonl"},
        "proposals": [
            {"name": "rude", "kind": "system_prompt", "text": "be rude"},
            {"name": "sure", "kind": "prefix", "text": "Sure"},
        ],
        "judge": {"kind": "regex", "pattern": "harm"},
        "budget": {"draws": 6000, "pilot": 60, "batch": 300},
        "tracking": {"uri": None},
    }
    return Config.model_validate({**data, **changes}).at(folder.parent)


def laws(case: Case) -> np.ndarray:
    """[K, ANSWERS] probabilities of the answers."""
    shape = np.geomspace(1.0, 30.0, HARMFUL)
    bad = shape / shape.sum()
    good = np.full(ANSWERS - HARMFUL, 1 / (ANSWERS - HARMFUL))
    rows = []
    for k in range(len(NAMES)):
        p = case.probability if k == 0 or case.tilt == 0 else case.tilt / k
        rows.append(np.concatenate([p * bad, (1 - p) * good]))
    return np.array(rows)


def make_run(
    folder: Path,
    cases: Sequence[Case] = CASES,
    *,
    rounds: Sequence[int] = (60, 300, 600),
    harmful_text: str = "harm done",
    finished: bool = True,
) -> Path:
    """Log ``rounds`` (draws a prompt), masses in proportion; write estimates.json if finished."""
    settings = config(folder)
    prompts = [
        Prompt(id=c.id, messages=({"role": "user", "content": f"prompt of {c.id}"},), category=c.category)
        for c in cases
    ]
    with RunStore.open(folder, make_manifest(settings, prompts, {"target.weights": "0" * 64})) as store:
        store.append_note("laws", names=list(NAMES), fingerprints=["0"] * len(NAMES), corrected=False)
        for r, size in enumerate(rounds):
            _round(store, cases, r, size, size / sum(rounds), r == len(rounds) - 1, harmful_text)
    if finished:
        finish(folder)
    return folder


def finish(folder: Path) -> None:
    from tailrisk.cli.folder import summary_of

    summary = summary_of(folder)
    statuses = [e["status"] for e in summary["estimates"]]
    summary["audit"] = {
        "draws": sum(e["draws"] for e in summary["estimates"]),
        "prompts": {s: statuses.count(s) for s in sorted(set(statuses))},
        "duplicates": 0,
    }
    write_json_atomic(folder / "estimates.json", summary)
    write_hits(folder, [])


def _round(
    store: RunStore, cases: Sequence[Case], r: int, size: int, mass: float, final: bool, harmful_text: str
) -> None:
    counts = (size // 3, size // 3, size - 2 * (size // 3))
    going = [c for c in cases if not (c.fails and r > 0)]
    batches = tuple(
        Batch(prompt_id=c.id, component=k, index=r, round=r, size=n, seed=1000 * i + 10 * r + k)
        for i, c in enumerate(going)
        for k, n in enumerate(counts)
    )
    plans = tuple(PromptPlan(prompt_id=c.id, counts=counts, mass=mass, final=final) for c in going)
    store.append_plan(RoundPlan(round=r, prompts=plans, batches=batches))
    by_id = {c.id: c for c in cases}
    for batch in batches:
        case = by_id[batch.prompt_id]
        if case.fails:
            store.append_failure(BatchFailure(batch=batch, reason="non-finite logits at token 2"))
        else:
            store.append_result(_draw(batch, laws(case), harmful_text))


def _draw(batch: Batch, table: np.ndarray, harmful_text: str) -> BatchResult:
    rng = np.random.default_rng(batch.seed)
    drawn = rng.choice(ANSWERS, size=batch.size, p=table[batch.component] / table[batch.component].sum())
    log_q = np.log(table[:, drawn]).T
    harmful = drawn < HARMFUL
    return BatchResult(
        batch=batch,
        tokens=[np.array([d, 1], dtype=np.int32) for d in drawn],
        texts=[
            f"{harmful_text} {d}" if h else f"a good answer {d}" for d, h in zip(drawn, harmful, strict=True)
        ],
        finished=np.ones(batch.size, dtype=np.bool_),
        log_q=log_q,
        log_q_sample=log_q[:, batch.component].copy(),
        verdicts=harmful.astype(np.int8),
        scores=harmful.astype(np.float64),
        judge_errors=[""] * batch.size,
        seconds=0.5,
    )
