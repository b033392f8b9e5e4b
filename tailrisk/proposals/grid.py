"""The laws of grids: proposals at every setting of ``method: paper`` or ``method: search``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tailrisk.grid import STRENGTHS, Value, cell_name, cell_names, law_cells
from tailrisk.models.laws import Law
from tailrisk.proposalconfig import ProposalConfig
from tailrisk.proposals.context import Context
from tailrisk.searchgrid import search_cells

Make = Callable[[Any, Context], Law]


def grid_laws(make: Make, context: Context) -> list[Law]:
    """Components 1, 2, ... of ``method: paper``: the laws of ``law_cells``. ``make`` makes the proposal's law."""
    proposal, made = context.config.proposals[0], _Makers(context)
    listed = zip(cell_names(context.config), law_cells(context.config), strict=True)
    return [made.law(make, proposal, name, cell.values) for name, cell in listed]


def search_laws(kinds: Mapping[str, Make], context: Context) -> list[Law]:
    """Components 1, 2, ... of ``method: search``: the laws of ``search_cells``, each proposal's law made by its
    kind's entry in ``kinds``."""
    proposals, made = context.config.proposals, _Makers(context)
    return [
        made.law(kinds[proposals[c.proposal].kind], proposals[c.proposal], c.name, c.values)
        for c in search_cells(context.config)
    ]


class _Makers:
    """Makes a law once for all cells that differ in ``mix`` and ``switch`` only, so that they share what is
    loaded and what is scored."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._made: dict[str, Law] = {}

    def law(self, make: Make, proposal: ProposalConfig, name: str, values: Mapping[str, Value]) -> Law:
        own = {field: v for field, v in values.items() if field in (*STRENGTHS.values(), "layers")}
        title = cell_name(proposal.name, own)
        if title not in self._made:
            self._made[title] = make(proposal.model_copy(update={**own, "name": title}), self._context)
        decoding = {field: v for field, v in values.items() if field in ("mix", "switch")}
        return replace(self._made[title], name=name, **decoding)
