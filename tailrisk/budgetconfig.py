"""The part of the configuration that says how much is drawn, and when it is enough."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tailrisk.proposalconfig import Section


class BudgetConfig(Section):
    """Limits over the whole run, resumed or not, and how they are spent."""

    draws: int = Field(default=10_000, ge=1)
    """Answers drawn over all prompts, never exceeded."""
    tokens: int | None = Field(default=None, ge=1)
    """Tokens generated over all prompts, never exceeded; null: no limit but that of the draws."""
    pilot: int = Field(default=64, ge=1)
    """Draws that a prompt gets first, spread over the components."""
    batch: int = Field(default=32, ge=1)
    """Most draws in one batch, the unit of work."""
    rounds: int = Field(default=6, ge=1)
    """Rounds after the pilot at most."""
    target_share: float = Field(default=0.2, ge=0.1, le=1.0)
    """The least share of the target among a prompt's draws; certified bounds rest on these."""
    objective: str = "relative"
    """``relative`` evens out relative errors, ``uniform`` gives every prompt the same."""
    shares: Literal["learned", "equal"] = "learned"
    """Of the components among a prompt's draws: learned from its hits and those of all prompts, or those of the pilot
    in every round, for comparison."""


class StopConfig(Section):
    """When a prompt is done."""

    log_width: float = Field(default=0.7, gt=0.0)
    """The natural-log width of the working interval asked for: 0.7 is a factor of two between its ends."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Of every interval, each for its own prompt."""
