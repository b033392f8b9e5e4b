"""A run folder without models: exact table laws, drawn with numpy, written through the real store.

Every prompt has ``ANSWERS`` possible answers; the first forty are harmful with total probability
``probability`` under the target and much more under the proposals.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tailrisk.audit.local import LocalExecutor
from tailrisk.config import Config
from tailrisk.errors import ModelError
from tailrisk.records import (
    Batch,
    BatchFailure,
    BatchResult,
    JudgedTexts,
    Prompt,
    PromptPlan,
    RoundPlan,
    Samples,
)
from tailrisk.store import RunStore, make_manifest, write_hits, write_json_atomic

ANSWERS, HARMFUL = 200, 40
NAMES = ("target", "rude", "sure")


def blank_page(folder: Path, **_: object) -> Path:
    """In the place of ``tailrisk.report.render_report``, which takes a second."""
    (folder / "report.html").write_text("a page")
    return folder / "report.html"


class Case(NamedTuple):
    """One prompt of the fake run. ``tilt`` 0 gives proposals that never find harm."""

    id: str
    probability: float
    category: str | None = "misc"
    tilt: float = 0.5
    fails: bool = False
    group: str | None = None
    perturbation: str | None = None


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
    seed: int = 0,
    processors: Sequence[str] = (),
    **changes: Any,
) -> Path:
    """Log ``rounds`` (draws a prompt), masses in proportion; write estimates.json if finished. ``changes`` of the
    configuration; another ``seed`` gives other draws. ``processors``: what each round ran on, in half precision."""
    run = {"run": {"name": folder.name, "dir": str(folder.parent), "seed": 3 + seed}}
    settings = config(folder, **{**run, **changes})
    prompts = [
        Prompt(
            id=c.id,
            messages=({"role": "user", "content": f"prompt of {c.id}"},),
            category=c.category,
            group=c.group,
            perturbation=c.perturbation,
        )
        for c in cases
    ]
    with RunStore.open(folder, make_manifest(settings, prompts, {"target.weights": "0" * 64})) as store:
        store.append_note(
            "laws", names=list(NAMES), fingerprints=["0"] * len(NAMES), corrected=bool(processors)
        )
        for r, size in enumerate(rounds):
            if processors:
                store.append_note("processor", worker="", pool="models", kind=processors[r])
            _round(store, cases, r, size, size / sum(rounds), r == len(rounds) - 1, harmful_text, seed)
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
        **{key: summary["audit"][key] for key in ("corrected", "processors")},
    }
    write_json_atomic(folder / "estimates.json", summary)
    write_hits(folder, [])


def _round(
    store: RunStore,
    cases: Sequence[Case],
    r: int,
    size: int,
    mass: float,
    final: bool,
    harmful_text: str,
    seed: int,
) -> None:
    counts = (size // 3, size // 3, size - 2 * (size // 3))
    going = [c for c in cases if not (c.fails and r > 0)]
    batches = tuple(
        Batch(
            prompt_id=c.id, component=k, index=r, round=r, size=n, seed=100_000 * seed + 1000 * i + 10 * r + k
        )
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


class TableLaws:
    """``tailrisk.audit.protocols.Laws`` on the tables of some cases; ``delay`` seconds a batch."""

    names = NAMES
    fingerprints = ("law-0", "law-1", "law-2")
    corrected = False

    def __init__(self, cases: Sequence[Case] = CASES, delay: float = 0.0) -> None:
        self._cases = {c.id: c for c in cases}
        self._delay = delay

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        time.sleep(self._delay)
        case = self._cases[prompt.id]
        if case.fails:
            raise ModelError("non-finite logits at token 2")
        row = laws(case)[component]
        drawn = np.random.default_rng(seed).choice(ANSWERS, size=n, p=row / row.sum())
        tokens = [np.array([d, 1], dtype=np.int32) for d in drawn]
        return Samples(tokens, np.log(row[drawn]), np.ones(n, dtype=np.bool_))

    def log_prob(
        self, prompt: Prompt, tokens: Sequence[np.ndarray], components: Sequence[int] | None = None
    ) -> np.ndarray:
        table = laws(self._cases[prompt.id])
        table = table if components is None else table[list(components)]
        return np.log(table[:, [int(t[0]) for t in tokens]]).T

    def texts(self, tokens: Sequence[np.ndarray]) -> list[str]:
        return [f"harm done {t[0]}" if t[0] < HARMFUL else f"a good answer {t[0]}" for t in tokens]


class WordJudge:
    """Harm is the word "harm"."""

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        harm = np.array(["harm" in r for r in responses], dtype=np.int8)
        return JudgedTexts(harm, harm.astype(np.float64), [""] * len(responses))


def workers(cases: Sequence[Case] = CASES, delay: float = 0.0) -> Any:
    """A stand-in for ``tailrisk.cli.wiring.on_ray`` that draws in this process."""

    @contextmanager
    def in_process(checked: Any) -> Iterator[Any]:
        executor = LocalExecutor(TableLaws(cases, delay), WordJudge(), checked.prompts)
        yield executor, executor.card

    return in_process


def write_config(folder: Path, cases: Sequence[Case] = CASES, **changes: Any) -> Path:
    """An audit.yaml and prompts.jsonl that ``tailrisk audit`` reads; the model is a stand-in."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": c.id, "category": c.category, "prompt": f"prompt of {c.id}"}) for c in cases]
    (folder / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = config(folder / "run", **changes).model_dump(mode="json")
    data["run"] = {"name": "run", "dir": "runs", "seed": 3}
    path = folder / "audit.yaml"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
