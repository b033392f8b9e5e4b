"""The part of the configuration that says what to draw from besides the target.

A *change* (system prompt, adapter, ablation, vector) turns the target into another law; a proposal of such a
kind may carry further changes under ``also``, applied in order to the same law. So may a prefix, whose opening is
then that of the changed law. A checkpoint stands alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Dtype = Literal["float32", "bfloat16", "float16", "float64"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SystemPromptChange(Section):
    """The target told something else."""

    kind: Literal["system_prompt"]
    text: str
    """What stands in the place of the target's system prompt."""


class LoraChange(Section):
    """The target with another adapter, or with its own one weaker, stronger, reversed or off. Several in one law add
    up."""

    kind: Literal["lora"]
    adapter: str
    """``target`` is the target's own one; else a PEFT folder, or the name of one in MLflow, in its place."""
    scale: float = Field(default=1.0, ge=-10.0, le=10.0)
    """What the adapter is multiplied by; 0: off."""
    added: bool = False
    """The adapter comes on top of the target's own one."""

    @model_validator(mode="after")
    def _not_to_itself(self) -> LoraChange:
        if self.added and self.adapter == "target":
            raise ValueError(
                "'added' is for another adapter; the target's own one is scaled by 'scale' alone"
            )
        return self


class AblationChange(Section):
    """The target with a direction taken out of its residual stream."""

    kind: Literal["ablation"]
    direction: str
    """A vector file that holds one."""
    intensity: float = Field(default=1.0, ge=0.0, le=10.0)
    """The part of the direction that is taken out."""
    form: Literal["residual", "writes"] = "residual"
    """``residual``: at the input of every block and from all that its attention and MLP say, so an intensity below 1
    compounds over the blocks. ``writes``: once from each write to the stream, by embeddings, attentions and MLPs."""


class VectorChange(Section):
    """The target with a vector added to its activations."""

    kind: Literal["vector"]
    vector: str
    """A vector file."""
    layers: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Blocks to whose output it is added (0 is the first, -1 the last); null: all that the file has a vector for."""
    coefficient: float = Field(default=1.0, ge=-1e6, le=1e6)
    """What the vector is multiplied by."""
    tokens: Literal["all", "prompt", "response"] = "all"
    """The positions at which it is added."""

    @field_validator("layers")
    @classmethod
    def _distinct(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if layers is not None and len(set(layers)) < len(layers):
            raise ValueError("a layer is given twice")
        return layers


Change = Annotated[
    SystemPromptChange | LoraChange | AblationChange | VectorChange, Field(discriminator="kind")
]


class ProposalBase(Section):
    """What every kind has; ``mix`` and ``switch`` are not for a prefix."""

    name: Name
    """What the component is called in tables; ``target`` is taken."""
    mix: float = Field(default=1.0, gt=0.0, le=1.0)
    """Each token comes from ``mix`` times the proposal plus 1 - ``mix`` times the target."""
    switch: int | None = Field(default=None, ge=1)
    """Tokens after which all come from the target; null: none do."""

    @property
    def placed_changes(self) -> list[tuple[str, Change]]:
        """What is changed in the target, in order, each with its place in the proposal's section: '' is the section
        itself, else ``also.N``. Nothing for kinds that are no change of it."""
        return []

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(change for _, change in self.placed_changes)


class CombinedProposal(ProposalBase):
    """What may be changed in several ways at once."""

    also: tuple[Change, ...] = ()
    """Further changes of the same law, applied in order: of kinds system_prompt, lora, ablation, vector."""

    @model_validator(mode="after")
    def _sensible(self) -> CombinedProposal:
        if sum(isinstance(c, SystemPromptChange) for c in self.changes) > 1:
            raise ValueError("'also' has a second system prompt, and a law reads one; join the two texts")
        adapters = [c.adapter for c in self.changes if isinstance(c, LoraChange)]
        if doubled := sorted({a for a in adapters if adapters.count(a) > 1}):
            raise ValueError(f"'also' has the adapter {doubled[0]!r} again; give it once, with one scale")
        return self

    @property
    def placed_changes(self) -> list[tuple[str, Change]]:
        return [(f"also.{number}", change) for number, change in enumerate(self.also)]


class ChangeProposal(CombinedProposal):
    """A change by itself; those of ``also`` come after it."""

    @property
    def placed_changes(self) -> list[tuple[str, Change]]:
        return [("", self), *super().placed_changes]  # pyright: ignore[reportReturnType]


class SystemPromptProposal(SystemPromptChange, ChangeProposal):
    """The target told something else."""


class LoraProposal(LoraChange, ChangeProposal):
    """The target with another adapter, or with its own one weaker, stronger, reversed or off."""


class AblationProposal(AblationChange, ChangeProposal):
    """The target with a direction taken out."""


class VectorProposal(VectorChange, ChangeProposal):
    """The target with a vector added to its activations."""


class PrefixProposal(CombinedProposal):
    """The target, or what ``also`` makes of it, its opening forced: by ``text`` or by ``avoid``, exactly one of the
    two."""

    kind: Literal["prefix"]
    text: str | None = Field(default=None, min_length=1)
    """How every answer begins; tokenised as it stands."""
    avoid: tuple[str, ...] | None = Field(default=None, min_length=1)
    """With none of these does an answer begin."""

    @model_validator(mode="after")
    def _one_of(self) -> PrefixProposal:
        if (self.text is None) == (self.avoid is None):
            raise ValueError("give exactly one of 'text' (a forced opening) and 'avoid' (openings shut out)")
        return self


class CheckpointProposal(ProposalBase):
    """Another model folder with the same tokenizer."""

    kind: Literal["checkpoint"]
    model: str
    """A local folder or a hub id."""


class LearnedProposal(ProposalBase):
    """An adapter that the audit fits before it estimates; the section ``training`` says how."""

    kind: Literal["learned"]
    base: Name = "target"
    """What it is fitted on top of: the target, or the proposal of this name."""
    share: float = Field(default=0.3, gt=0.0, lt=1.0)
    """The part of the budget's draws that goes to the fit and is in no estimate."""
    rounds: int = Field(default=1, ge=1, le=20)
    """Rounds of drawing and fitting."""


ProposalConfig = Annotated[
    SystemPromptProposal
    | LoraProposal
    | AblationProposal
    | VectorProposal
    | PrefixProposal
    | CheckpointProposal
    | LearnedProposal,
    Field(discriminator="kind"),
]
