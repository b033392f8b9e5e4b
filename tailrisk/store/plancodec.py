"""Plans of rounds and their batches <-> rows of plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrisk.records import Batch, PromptPlan, RoundPlan


def encode_plan(plan: RoundPlan) -> dict[str, Any]:
    return {
        "round": plan.round,
        "prompts": [_encode_prompt_plan(p) for p in plan.prompts],
        "batches": [encode_batch(b) for b in plan.batches],
    }


def decode_plan(payload: Mapping[str, Any]) -> RoundPlan:
    return RoundPlan(
        round=payload["round"],
        prompts=tuple(_decode_prompt_plan(p) for p in payload["prompts"]),
        batches=tuple(decode_batch(b) for b in payload["batches"]),
    )


def _encode_prompt_plan(p: PromptPlan) -> list[Any]:
    return [p.prompt_id, list(p.counts), p.mass, p.final, *_some(p.components, p.faded)]


def _decode_prompt_plan(row: list[Any]) -> PromptPlan:
    prompt_id, counts, mass, final, *some = row
    return PromptPlan(
        prompt_id=prompt_id,
        counts=tuple(counts),
        mass=float(mass),
        final=final,
        components=_components(some),
        faded=tuple(map(float, some[1])) if len(some) > 1 else None,
    )


def encode_batch(b: Batch) -> list[Any]:
    return [b.prompt_id, b.component, b.index, b.round, b.size, b.seed, *_some(b.components)]


def decode_batch(row: list[Any]) -> Batch:
    prompt_id, component, index, round_, size, seed, *some = row
    return Batch(
        prompt_id=prompt_id,
        component=component,
        index=index,
        round=round_,
        size=size,
        seed=seed,
        components=_components(some),
    )


def _some(components: tuple[int, ...] | None, faded: tuple[float, ...] | None = None) -> list[Any]:
    """What a row ends with: nothing where all components count and none has faded."""
    ends = [None if components is None else list(components), None if faded is None else list(faded)]
    while ends and ends[-1] is None:
        ends.pop()
    return ends


def _components(some: list[Any]) -> tuple[int, ...] | None:
    return tuple(some[0]) if some and some[0] is not None else None
