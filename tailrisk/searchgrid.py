"""The grids of ``method: search``: from a configuration to the cells of all proposals, their names, and sizes.

A cell is one proposal at one setting of the fields that its grid lists; a proposal without a grid is one cell,
as it is configured. Cells are components 1, 2, ... in the order of the proposals, the last field of a grid
varying fastest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tailrisk.grid import STRENGTHS, Value, cell_name, combinations, distance

if TYPE_CHECKING:
    from tailrisk.config import Config, SearchGrid, SearchMethod

MOST_CELLS = 1000
"""Every search draw is scored under every cell, and the numbers are kept."""


class SearchCell(NamedTuple):
    """``component``: its place among the laws. ``proposal``: its place among the proposals. ``values``: the
    fields that its grid sets."""

    component: int
    proposal: int
    name: str
    values: dict[str, Value]


def search_method(config: Config) -> SearchMethod:
    """The configuration's method. Errors: ValueError for another one than ``search``."""
    if config.method.kind != "search":
        raise ValueError(f"method: {config.method.kind!r} has no search over the cells of all proposals")
    return config.method


def search_cells(config: Config) -> tuple[SearchCell, ...]:
    """All cells of all proposals, in the order of their components."""
    grids = {grid.proposal: grid for grid in search_method(config).grids}
    cells: list[SearchCell] = []
    for place, proposal in enumerate(config.proposals):
        listed = _listed(grids[proposal.name]) if proposal.name in grids else {}
        for values in combinations(listed):
            cells.append(SearchCell(len(cells) + 1, place, cell_name(proposal.name, values), values))
    return tuple(cells)


def strongest_cells(config: Config) -> tuple[SearchCell, ...]:
    """Of each proposal, the cell that is farthest from the target."""
    longest = config.target.sampling.max_new_tokens
    found: dict[int, tuple[Any, SearchCell]] = {}
    for cell in search_cells(config):
        away = distance(config.proposals[cell.proposal], cell.values, longest)
        if cell.proposal not in found or away > found[cell.proposal][0]:
            found[cell.proposal] = (away, cell)
    return tuple(cell for _, cell in found.values())


def kept_components(config: Config) -> int:
    """Components of a prompt after the search at most, the target among them."""
    return 1 + min(search_method(config).keep, len(search_cells(config)))


def search_problems(config: Config, prompts: int) -> list[str]:
    """Why the budget does not hold the search and the pilot after it; empty if it does."""
    method, budget, kept = search_method(config), config.budget, kept_components(config)
    draws = (method.search_draws + budget.pilot) * prompts
    needed = (
        f"method search needs {method.search_draws} draws a prompt to choose by and a pilot of {budget.pilot} "
        f"after it, {draws:,} in all for {prompts} prompts"
    )
    less = "lower method.search_draws or budget.pilot, or set prompts.limit"
    problems = []
    if budget.pilot < 2 * kept:
        problems.append(
            f"budget.pilot is {budget.pilot}, but a prompt goes on with up to {kept} components that need 2 "
            f"draws each: set budget.pilot to at least {2 * kept}, or lower method.keep"
        )
    if draws > budget.draws:
        problems.append(f"{needed}; budget.draws is {budget.draws:,}: raise it, {less}")
    longest = config.target.sampling.max_new_tokens
    if budget.tokens is not None and draws * longest > budget.tokens:
        problems.append(
            f"{needed}, and these may take {draws * longest:,} tokens; budget.tokens is {budget.tokens:,}: "
            f"raise it, {less}, or lower target.sampling.max_new_tokens"
        )
    return problems


def check_grids(config: Config) -> None:
    """Errors: ValueError where proposals and grids do not go together."""
    method, proposals = search_method(config), {p.name: p for p in config.proposals}
    if not proposals:
        raise ValueError("method: search chooses among proposals and none is given; add 'proposals'")
    for place, grid in enumerate(method.grids):
        here = f"method.grids.{place}"
        if grid.proposal not in proposals:
            raise ValueError(
                f"{here}.proposal: no proposal is named {grid.proposal!r}; named are {', '.join(proposals)}"
            )
        if any(other.proposal == grid.proposal for other in method.grids[:place]):
            raise ValueError(f"{here}.proposal: {grid.proposal!r} has a grid already; join the two")
        known = _known(proposals[grid.proposal].kind)
        if not known:
            raise ValueError(
                f"{here}: {grid.proposal!r} is a prefix, which has nothing to vary; leave it out"
            )
        listed = _listed(grid)
        for field in listed:
            if field not in known:
                raise ValueError(
                    f"{here}.{field}: the proposal {grid.proposal!r} is of kind "
                    f"{proposals[grid.proposal].kind} and has no {field!r}; known here: {', '.join(known)}"
                )
        if not listed:
            raise ValueError(
                f"{here}: the grid of {grid.proposal!r} is empty; list values of {', '.join(known)}, or leave "
                "it out"
            )
        _check_settable(config, grid, here)
    _check_cells(config)


def _check_settable(config: Config, grid: SearchGrid, here: str) -> None:
    """A field is given once: in the proposal or in its grid."""
    place = next(i for i, p in enumerate(config.proposals) if p.name == grid.proposal)
    for field in _listed(grid):
        proposal = config.proposals[place]
        if getattr(proposal, field) != type(proposal).model_fields[field].default:
            raise ValueError(
                f"proposals.{place}.{field}: the grid {here}.{field} sets it; give it in one of the two places"
            )


def _check_cells(config: Config) -> None:
    names = [cell.name for cell in search_cells(config)]
    if len(names) > MOST_CELLS:
        raise ValueError(
            f"method.grids: {len(names):,} cells in all, more than {MOST_CELLS:,}; list fewer values"
        )
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(
            f"method.grids: two cells are named {doubled[0]!r} (numbers are told apart by six digits); leave "
            "one out or rename the proposal"
        )


def _known(kind: str) -> tuple[str, ...]:
    """The fields of a proposal that a grid may vary."""
    if kind == "prefix":
        return ()
    own = {"vector": ("layers", "coefficient")}.get(kind, (STRENGTHS[kind],) if kind in STRENGTHS else ())
    return (*own, "mix", "switch")


def _listed(grid: SearchGrid) -> dict[str, tuple[Value, ...]]:
    """The fields of a grid that have values, those that need a scoring pass of their own first."""
    fields = ("layers", "intensity", "scale", "coefficient", "mix", "switch")
    return {field: values for field in fields if (values := getattr(grid, field)) is not None}
