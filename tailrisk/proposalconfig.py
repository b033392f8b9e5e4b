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
    """``text`` in the place of the target's system prompt."""

    kind: Literal["system_prompt"]
    text: str


class LoraChange(Section):
    """``adapter: target`` is the target's own adapter times ``scale`` (0: off); else a PEFT folder. It stands
    in the place of the target's own adapter, or is ``added`` to it; several in one law add up."""

    kind: Literal["lora"]
    adapter: str
    scale: float = Field(default=1.0, ge=-10.0, le=10.0)
    added: bool = False

    @model_validator(mode="after")
    def _not_to_itself(self) -> LoraChange:
        if self.added and self.adapter == "target":
            raise ValueError(
                "'added' is for another adapter; the target's own one is scaled by 'scale' alone"
            )
        return self


class AblationChange(Section):
    """Removal of a direction (a vector file that holds one) from the residual stream.

    ``form`` ``residual``: at the input of every block and from all that its attention and MLP say, so an
    intensity below 1 compounds over the blocks. ``writes``: once from each write to the stream, by the
    embeddings, attentions and MLPs.
    """

    kind: Literal["ablation"]
    direction: str
    intensity: float = Field(default=1.0, ge=0.0, le=10.0)
    form: Literal["residual", "writes"] = "residual"


class VectorChange(Section):
    """``coefficient`` times the vector of a file, added to the output of the blocks ``layers`` (0 is the
    first, -1 the last; None: all that the file has a vector for), at the positions of ``tokens``."""

    kind: Literal["vector"]
    vector: str
    layers: tuple[int, ...] | None = Field(default=None, min_length=1)
    coefficient: float = Field(default=1.0, ge=-1e6, le=1e6)
    tokens: Literal["all", "prompt", "response"] = "all"

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
    """Decoding options of every kind: for the first ``switch`` tokens (None: all of them) each token comes
    from ``mix`` * proposal + (1 - mix) * target; afterwards from the target."""

    name: Name
    mix: float = Field(default=1.0, gt=0.0, le=1.0)
    switch: int | None = Field(default=None, ge=1)

    @property
    def placed_changes(self) -> list[tuple[str, Change]]:
        """What is changed in the target, in order, each with its place in the proposal's section: '' is the section
        itself, else ``also.N``. Nothing for kinds that are no change of it."""
        return []

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(change for _, change in self.placed_changes)


class CombinedProposal(ProposalBase):
    """``also``: changes of the same law, applied in order."""

    also: tuple[Change, ...] = ()

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
    """The target, or what ``also`` makes of it, its opening forced: to begin with ``text``, or *not* to begin with any
    of the texts of ``avoid``. Exactly one of the two."""

    kind: Literal["prefix"]
    text: str | None = Field(default=None, min_length=1)
    avoid: tuple[str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_of(self) -> PrefixProposal:
        if (self.text is None) == (self.avoid is None):
            raise ValueError("give exactly one of 'text' (a forced opening) and 'avoid' (openings shut out)")
        return self


class CheckpointProposal(ProposalBase):
    """Another model folder with the same tokenizer."""

    kind: Literal["checkpoint"]
    model: str


class LearnedProposal(ProposalBase):
    """An adapter that the audit fits before it estimates, on top of the target or of the proposal ``base``. ``share``
    of the budget's draws, in ``rounds``, go to the fit and are in no estimate; the section ``training`` says how it is
    fitted."""

    kind: Literal["learned"]
    base: Name = "target"
    share: float = Field(default=0.3, gt=0.0, lt=1.0)
    rounds: int = Field(default=1, ge=1, le=20)


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
