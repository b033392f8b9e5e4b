"""The "search" part of estimates.json: what was tried, how near it came to the harmful answers, what was chosen."""

from __future__ import annotations

import math
from typing import Any

from tailrisk.audit.methods.choice import Choice, choose
from tailrisk.audit.state import AuditState
from tailrisk.searchgrid import search_cells, search_method


def search_record(state: AuditState) -> dict[str, Any] | None:
    """Plain JSON values, a function of the log alone; None for another method or before the search is done.

    ``cells``: name, proposal and settings of every cell. ``pools``: each choice with the prompts it is for, the
    hits it rests on, and ``surface``: of every component its draws' hits, the cross-entropy (nats; None where
    it cannot produce some harmful answer) and the gain (nats by which it with the target's share is nearer
    to the harmful answers than the target alone). ``chosen``: what each prompt's estimate rests on.
    """
    if state.config.method.kind != "search" or not state.search_rounds or state.pending:
        return None
    method, names = search_method(state.config), state.laws.names
    return {
        "search_draws": method.search_draws,
        "keep": method.keep,
        "cells": [
            {
                "name": cell.name,
                "proposal": state.config.proposals[cell.proposal].name,
                "values": {k: list(v) if isinstance(v, tuple) else v for k, v in cell.values.items()},
            }
            for cell in search_cells(state.config)
        ],
        "pools": [_pool(choice, names) for choice in choose(state)],
        "chosen": {
            i: [names[k] for k in ledger.components]
            for i, ledger in state.ledgers.items()
            if ledger.restriction is not None
        },
    }


def _pool(choice: Choice, names: tuple[str, ...]) -> dict[str, Any]:
    surface = (
        [
            {
                "component": name,
                "hits": int(hits),
                "cross_entropy": score.cross_entropy if math.isfinite(score.cross_entropy) else None,
                "gain": score.gain,
            }
            for name, hits, score in zip(names, choice.found, choice.scores, strict=True)
        ]
        if choice.scores
        else []
    )
    return {
        "pool": choice.pool,
        "prompts": list(choice.prompts),
        "searched": list(choice.searched),
        "basis": choice.basis,
        "hits": choice.hits,
        "ess": choice.ess,
        "chosen": {names[k]: float(choice.shares[k]) for k in choice.components},
        "gain": choice.gain if choice.scores else None,
        "held_out": list(choice.held_out),
        "surface": surface,
    }
