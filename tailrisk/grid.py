"""The grid of ``method: paper``: from a configuration to cells, their names, and numbers of draws.

A cell is one setting of the only proposal: a strength (``intensity`` of an ablation, ``scale`` of an adapter,
``coefficient`` of a vector; other kinds have none), ``mix`` and ``switch``. The published grid has 10
intensities 0.1, ..., 1, the switches 0, 5, ..., max_new_tokens and 25 mixes linspace(0, 1, 25): 7,750 cells at
150 tokens. As every draw is scored under every cell and these numbers are kept, the default grid has five
values of each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from tailrisk.config import Config, PaperMethod, ProposalConfig

STRENGTHS = {"ablation": "intensity", "lora": "scale", "vector": "coefficient"}
"""Kind of proposal -> its field that says how far it is from the target."""
FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
COEFFICIENTS = (1.0, 1.5, 2.0, 2.5, 3.0)
"""Those published for persona vectors."""


V = TypeVar("V")
Value = float | int | tuple[int, ...] | None
"""Of a field in a grid: a number, blocks (``layers``), or None for all tokens or all blocks."""


class Cell(NamedTuple):
    """One combination of the grid's values. ``component``: its place among the laws, 0 (the target) where
    ``mix`` or ``switch`` is 0. ``strength``: its place among the strengths."""

    component: int
    strength: int
    values: dict[str, float | int | None]


def combinations(values: Mapping[str, Sequence[V]]) -> Iterator[dict[str, V]]:
    """Every combination of the fields' values, the last field varying fastest."""
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def cell_name(proposal: str, values: Mapping[str, Value]) -> str:
    """E.g. ``ablated-intensity0.3-mix0.5-switch20``, ``pirate-layers10.11-coefficient2``."""
    return "-".join((proposal, *(f"{key}{_written(value)}" for key, value in values.items())))


def _written(value: Value) -> str:
    if value is None:
        return "all"
    return ".".join(map(str, value)) if isinstance(value, tuple) else format(value, "g")


def distance(proposal: ProposalConfig, values: Mapping[str, Value], longest: int) -> tuple[float, float, int]:
    """How far a cell is from the target, in an order to compare by: the strength (for the target's own adapter
    the distance of its scale from 1), ``mix``, and ``switch`` (at most ``longest`` tokens). Fields that
    ``values`` does not set are the proposal's own."""

    def value(field: str) -> Any:
        return values[field] if field in values else getattr(proposal, field)

    field = STRENGTHS.get(proposal.kind)
    strength = 0.0 if field is None else float(value(field) or 0.0)
    away = 1.0 - strength if _fades(proposal) else strength
    switch = value("switch")
    return abs(away), float(value("mix") or 0.0), longest if switch is None else min(int(switch), longest)


class Size(NamedTuple):
    """``prompts`` that are searched; draws of the whole ``search`` and of the ``final`` round."""

    prompts: int
    search: int
    final: int

    @property
    def draws(self) -> int:
        return self.search + self.final


def paper_method(config: Config) -> PaperMethod:
    """The configuration's method. Errors: ValueError for another one than ``paper``."""
    if config.method.kind != "paper":
        raise ValueError(f"method: {config.method.kind!r} has no grid")
    return config.method


def grid_values(config: Config) -> dict[str, tuple[float | int | None, ...]]:
    """The values of every field that the grid varies, the strength first."""
    grid, proposal = paper_method(config).grid, config.proposals[0]
    longest = config.target.sampling.max_new_tokens
    values: dict[str, tuple[float | int | None, ...]] = {}
    if (strength := STRENGTHS.get(proposal.kind)) is not None:
        values[strength] = getattr(grid, strength) or _default_strengths(proposal)
    values["mix"] = grid.mix or FIFTHS
    values["switch"] = grid.switch or tuple(sorted({math.ceil(longest * i / 5) for i in range(1, 6)}))
    return values


def _default_strengths(proposal: ProposalConfig) -> tuple[float, ...]:
    """From weak to strong; the target's own adapter is weakened until it is off."""
    if _fades(proposal):
        return tuple(round(1.0 - value, 1) for value in FIFTHS)
    return COEFFICIENTS if proposal.kind == "vector" else FIFTHS


def _fades(proposal: ProposalConfig) -> bool:
    return getattr(proposal, "adapter", None) == "target"


def cells(config: Config) -> tuple[Cell, ...]:
    """All cells in the order of the product of ``grid_values``, the last field varying fastest.

    Cells that are the target itself stay in the list: they are candidates of the choice like all others.
    """
    values = grid_values(config)
    first = next(iter(values)) if len(values) == 3 else None
    found, components = [], itertools.count(1)
    for cell in combinations(values):
        target = cell["mix"] == 0 or cell["switch"] == 0
        strength = values[first].index(cell[first]) if first else 0
        found.append(Cell(0 if target else next(components), strength, cell))
    return tuple(found)


def law_cells(config: Config) -> tuple[Cell, ...]:
    """The cells that are laws of their own: components 1, 2, ... in order."""
    return tuple(cell for cell in cells(config) if cell.component)


def cell_names(config: Config) -> tuple[str, ...]:
    """Names of ``law_cells``, e.g. ``ablated-intensity0.3-mix0.5-switch20``."""
    return tuple(cell_name(config.proposals[0].name, cell.values) for cell in law_cells(config))


def strongest(config: Config) -> int:
    """Place of the cell that is farthest from the target: the greatest strength (for the target's own adapter
    the scale farthest from 1), ``mix`` and ``switch``."""
    longest, listed = config.target.sampling.max_new_tokens, cells(config)
    return max(range(len(listed)), key=lambda i: distance(config.proposals[0], listed[i].values, longest))


def paper_size(config: Config, prompts: int) -> Size:
    """Draws of the search and of the final round over ``prompts`` prompts."""
    method = paper_method(config)
    searched = max(1, int(round(method.search_share * prompts, 9)))
    strengths = 1 + max(cell.strength for cell in cells(config))
    return Size(searched, searched * strengths * search_draws(method), method.draws * prompts)


def search_draws(method: PaperMethod) -> int:
    """Draws of the search for one prompt at one strength."""
    return method.draws if method.search_draws is None else method.search_draws


def budget_problems(config: Config, prompts: int) -> list[str]:
    """Why the budget does not hold the search and the final round; empty if it does."""
    size, budget = paper_size(config, prompts), config.budget
    needed = (
        f"method paper needs {size.search:,} draws for its search on {size.prompts} of {prompts} prompts and "
        f"{size.final:,} for the estimates (method.draws each), {size.draws:,} in all"
    )
    less = "lower method.draws, method.search_draws or method.search_share, or set prompts.limit"
    problems = []
    if size.draws > budget.draws:
        problems.append(f"{needed}; budget.draws is {budget.draws:,}: raise it, {less}")
    longest = config.target.sampling.max_new_tokens
    if budget.tokens is not None and size.draws * longest > budget.tokens:
        problems.append(
            f"{needed}, and these may take {size.draws * longest:,} tokens; budget.tokens is "
            f"{budget.tokens:,}: raise it, {less}, or lower target.sampling.max_new_tokens"
        )
    return problems


def check_grid(config: Config) -> None:
    """Errors: ValueError where proposals and grid do not go together."""
    if len(config.proposals) != 1:
        raise ValueError(
            f"method: paper takes exactly one entry in 'proposals', {len(config.proposals)} are given; "
            "its grid varies the settings of that one"
        )
    proposal, grid = config.proposals[0], paper_method(config).grid
    if proposal.kind == "prefix":
        raise ValueError(
            "method: paper needs a proposal that 'mix' and 'switch' apply to; a prefix takes none"
        )
    own = STRENGTHS.get(proposal.kind)
    for field in STRENGTHS.values():
        if field != own and getattr(grid, field) is not None:
            raise ValueError(
                f"method.grid.{field}: the proposal {proposal.name!r} is of kind {proposal.kind} and has no "
                f"{field!r}; known here: {', '.join(grid_values(config))}"
            )
    for field in grid_values(config):
        if getattr(proposal, field) != type(proposal).model_fields[field].default:
            raise ValueError(
                f"proposals.0.{field}: under method paper the grid sets it; give method.grid.{field} instead"
            )
    names = cell_names(config)
    if not names:
        raise ValueError("method.grid: every cell is the target itself; give a mix and a switch above 0")
    if len(set(names)) < len(names):
        raise ValueError("method.grid: values that agree in their first six digits; leave one out")
