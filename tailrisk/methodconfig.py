"""The part of the configuration that says how the draws are planned: the methods and the grids that they search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, field_validator

from tailrisk.proposalconfig import Name, Section

_NUMBER = {"type": "integer"}
Blocks = Annotated[tuple[int, ...], WithJsonSchema({"anyOf": [_NUMBER, {"type": "array", "items": _NUMBER}]})]


class GridConfig(Section):
    """Settings that ``method: paper`` tries, a list for each field of the proposal that it varies: every
    combination is a cell. Null: five values (``tailrisk.grid``)."""

    intensity: tuple[Annotated[float, Field(ge=0.0, le=10.0)], ...] | None = Field(default=None, min_length=1)
    """Of an ablation."""
    scale: tuple[Annotated[float, Field(ge=-10.0, le=10.0)], ...] | None = Field(default=None, min_length=1)
    """Of an adapter."""
    coefficient: tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...] | None = Field(
        default=None, min_length=1
    )
    """Of a vector."""
    mix: tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...] | None = Field(default=None, min_length=1)
    """Of any kind; 0 is the target itself."""
    switch: tuple[Annotated[int, Field(ge=0)] | None, ...] | None = Field(default=None, min_length=1)
    """Of any kind; 0 is the target itself, null the whole answer."""

    @field_validator("*")
    @classmethod
    def _distinct(cls, values: Any) -> Any:
        if isinstance(values, tuple) and len(set(values)) < len(values):
            raise ValueError("a value is given twice")
        return values


class SearchGrid(GridConfig):
    """The settings of one proposal that ``method: search`` tries: every combination is a cell; what is not listed
    stays as the proposal has it."""

    proposal: Name
    """Name of the proposal."""
    layers: tuple[Blocks | None, ...] | None = Field(default=None, min_length=1)
    """Choices for a vector, each one block or a list of blocks that get it together."""
    mix: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] | None = Field(default=None, min_length=1)
    """Of any kind."""
    switch: tuple[Annotated[int, Field(ge=1)] | None, ...] | None = Field(default=None, min_length=1)
    """Of any kind; null is the whole answer."""

    @field_validator("layers", mode="before")
    @classmethod
    def _one_block_is_a_list(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [[v] if isinstance(v, int) and not isinstance(v, bool) else v for v in value]


class MixtureMethod(Section):
    """A mixture of the target and all proposals, its shares adapted to each prompt in rounds."""

    kind: Literal["mixture"] = "mixture"


class PaperMethod(Section):
    """The published estimator: one setting of one proposal for all prompts, chosen by cross-entropy."""

    kind: Literal["paper"] = "paper"
    draws: int = Field(default=500, ge=2)
    """A prompt, from the setting that was chosen."""
    search_draws: int | None = Field(default=None, ge=1)
    """A searched prompt, at each strength of the proposal; null: ``draws``."""
    search_share: float = Field(default=0.1, gt=0.0, le=1.0)
    """The first part of the prompts, which is searched."""
    grid: GridConfig = GridConfig()
    """What is tried."""


class SearchMethod(Section):
    """The mixture, its components chosen first: those whose mixture with the target has the smallest cross-entropy
    from the harmful answers found."""

    kind: Literal["search"] = "search"
    search_draws: int = Field(default=64, ge=4)
    """A prompt, out of ``budget.draws``, spread over the target and all cells."""
    keep: int = Field(default=3, ge=1)
    """Cells that a prompt goes on with at most."""
    per: Literal["prompt", "group", "all"] | None = None
    """Which prompts are pooled to choose; null: the groups if the prompts have any, else each prompt by itself. Where
    too few harmful answers are found, all prompts are pooled."""
    grids: tuple[SearchGrid, ...] = ()
    """What is tried of which proposal; a proposal without a grid is one cell."""


MethodConfig = Annotated[MixtureMethod | PaperMethod | SearchMethod, Field(discriminator="kind")]
