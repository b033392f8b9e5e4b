"""What the search found, and which components each prompt goes on with: a pure function of the search draws.

Prompts choose by themselves, by groups or all together; where the pool has too few harmful answers, all prompts
together choose for it. The draws that chose are in no estimate, so an estimate is unbiased whatever was chosen.

Harm must be found by two proposals before an estimate is believed (see ``tailrisk.stats.overlap``). So where all
the cells that the cross-entropy picks belong to one proposal, the best cell of another is kept beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from tailrisk.audit.state import AuditState
from tailrisk.records import FloatArray
from tailrisk.searchgrid import SearchCell, search_cells, search_method, strongest_cells
from tailrisk.stats.searchhits import Pool, Score, SearchHits, pooled, scores, search_hits
from tailrisk.stats.selection import mixture_shares, select, with_one_of
from tailrisk.stats.shares import initial_shares, with_floors

ENOUGH_HITS = 5.0
"""Effective hits from which on a pool chooses by itself."""
PRIOR_HITS = 10.0
"""Effective hits that even shares count as, beside those of the search."""

Basis = Literal["own", "few", "none"]


class Choice(NamedTuple):
    """What the prompts of one pool go on with.

    ``pool``: "all", "group ..." or "prompt ...". ``prompts`` are those whose choice this is, ``searched`` those
    whose hits it rests on. ``basis``: ``own`` hits, ``few`` of them (then the strongest cells of other proposals
    fill the places), or ``none`` at all (nothing but these). ``components``: in increasing order, the
    target first; ``shares`` [K] to begin with, 0 for the others. ``scores`` [K] of all components and
    ``found`` [K] hits by who drew them; ``gain`` and ``held_out``: see ``Selection``.
    """

    pool: str
    prompts: tuple[str, ...]
    searched: tuple[str, ...]
    basis: Basis
    components: tuple[int, ...]
    shares: FloatArray
    hits: int
    ess: float
    scores: tuple[Score, ...]
    found: FloatArray
    gain: float
    held_out: tuple[float, ...]


def choose(state: AuditState) -> list[Choice]:
    """Choices that together hold every prompt once; call it when the search is complete."""
    found = {
        i: search_hits(ledger.searches, corrected=state.laws.corrected)
        for i, ledger in state.ledgers.items()
        if ledger.searches
    }
    choices, poor = [], []
    for name, prompts in _units(state).items():
        hits = {i: found[i] for i in prompts if i in found}
        if name != "all" and sum(h.ess for h in hits.values()) >= ENOUGH_HITS:
            choices.append(_chosen(state, name, prompts, hits))
        else:
            poor += prompts
    if poor and any(h.hits for h in found.values()):
        choices.append(_chosen(state, "all", tuple(poor), found))
    elif poor:
        choices += _spread(state, poor)
    return choices


def _units(state: AuditState) -> dict[str, tuple[str, ...]]:
    """Name -> prompts that choose together."""
    per = search_method(state.config).per
    if per is None:
        per = "group" if any(x.prompt.group for x in state.ledgers.values()) else "prompt"
    units: dict[str, list[str]] = {}
    for i, ledger in state.ledgers.items():
        group = ledger.prompt.group
        alone = f"group {group}" if per == "group" and group else f"prompt {i}"
        name = "all" if per == "all" else alone
        units.setdefault(name, []).append(i)
    return {name: tuple(prompts) for name, prompts in units.items()}


def _chosen(state: AuditState, name: str, prompts: tuple[str, ...], hits: dict[str, SearchHits]) -> Choice:
    config, cells = state.config, search_cells(state.config)
    keep, share = search_method(config).keep, config.budget.target_share
    pool = pooled(list(hits.values()))
    few = pool.ess < ENOUGH_HITS
    selected = select(pool, [c.component for c in cells], keep=keep, target_share=share, held_out=not few)
    others = _of_other_proposals(cells, selected.components)
    if others and keep > 1:
        selected = with_one_of(pool, selected, others, keep=keep, target_share=share)
    components = selected.components
    if few:
        components = _filled(components, cells, strongest_cells(config), keep)
    return Choice(
        pool=name,
        prompts=prompts,
        searched=tuple(i for i, h in hits.items() if h.hits),
        basis="few" if few else "own",
        components=(0, *sorted(components)),
        shares=_shares(state, pool, components),
        hits=pool.hits,
        ess=pool.ess,
        scores=scores(pool, share),
        found=np.sum([h.by_component for h in hits.values()], axis=0),
        gain=selected.gain,
        held_out=selected.held_out,
    )


def _of_other_proposals(cells: Sequence[SearchCell], chosen: Sequence[int]) -> list[int]:
    """The components of all proposals but the one that all the chosen belong to; none if they differ."""
    used = {c.proposal for c in cells if c.component in chosen}
    return [c.component for c in cells if c.proposal not in used] if len(used) == 1 else []


def _filled(
    chosen: Sequence[int], cells: Sequence[SearchCell], spread: Sequence[SearchCell], keep: int
) -> tuple[int, ...]:
    used = {c.proposal for c in cells if c.component in chosen}
    more = [c.component for c in spread if c.proposal not in used]
    return (*chosen, *more)[:keep]


def _spread(state: AuditState, prompts: Sequence[str]) -> list[Choice]:
    """Without a hit: the strongest cells of the proposals, in turn over the prompts where there are more
    proposals than places."""
    strongest, k = strongest_cells(state.config), len(state.laws.names)
    keep = min(search_method(state.config).keep, len(strongest))
    choices: dict[tuple[int, ...], Choice] = {}
    for number, prompt in enumerate(prompts):
        picked = [strongest[(number * keep + j) % len(strongest)].component for j in range(keep)]
        components = (0, *sorted(picked))
        if components in choices:
            before = choices[components]
            choices[components] = before._replace(prompts=(*before.prompts, prompt))
            continue
        shares = np.zeros(k)
        shares[list(components)] = initial_shares(len(components), state.config.budget.target_share)
        choices[components] = Choice(
            pool="all",
            prompts=(prompt,),
            searched=(),
            basis="none",
            components=components,
            shares=shares,
            hits=0,
            ess=0.0,
            scores=(),
            found=np.zeros(k),
            gain=0.0,
            held_out=(),
        )
    return list(choices.values())


def _shares(state: AuditState, pool: Pool, components: Sequence[int]) -> FloatArray:
    """[K] shares to begin with: the best for the hits of the search, pulled to even ones."""
    share = state.config.budget.target_share
    best = mixture_shares(pool, components, share)
    even = initial_shares(len(best), share)
    blend = with_floors((pool.ess * best + PRIOR_HITS * even) / (pool.ess + PRIOR_HITS), share)
    shares = np.zeros(len(state.laws.names))
    shares[[0, *components]] = blend
    return shares
