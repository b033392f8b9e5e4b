"""The configuration of an audit: one YAML file, checked in full before any model is loaded.

``Config`` is the schema; its proposals, judges, methods and workers are in ``proposalconfig``, ``judgeconfig``,
``methodconfig`` and ``clusterconfig``. Reading, overriding and error messages live in ``tailrisk.configfile``.
Unknown keys are refused. Relative paths are relative to the file that names them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from tailrisk.clusterconfig import ClusterConfig as ClusterConfig
from tailrisk.clusterconfig import Parallel as Parallel
from tailrisk.clusterconfig import PoolConfig as PoolConfig
from tailrisk.judgeconfig import EndpointJudge as EndpointJudge
from tailrisk.judgeconfig import JudgeConfig as JudgeConfig
from tailrisk.judgeconfig import LinearJudge as LinearJudge
from tailrisk.judgeconfig import ModelJudge as ModelJudge
from tailrisk.judgeconfig import PythonJudge as PythonJudge
from tailrisk.judgeconfig import RefusalJudge as RefusalJudge
from tailrisk.judgeconfig import RegexJudge as RegexJudge
from tailrisk.judgeconfig import SingleJudge, judges_of
from tailrisk.judgeconfig import StrongJudge as StrongJudge
from tailrisk.methodconfig import GridConfig as GridConfig
from tailrisk.methodconfig import MethodConfig, MixtureMethod, PaperMethod, SearchMethod
from tailrisk.methodconfig import SearchGrid as SearchGrid
from tailrisk.proposalconfig import AblationProposal as AblationProposal
from tailrisk.proposalconfig import CheckpointProposal as CheckpointProposal
from tailrisk.proposalconfig import Dtype, LearnedProposal, LoraChange, Name, ProposalConfig, Section
from tailrisk.proposalconfig import LoraProposal as LoraProposal
from tailrisk.proposalconfig import PrefixProposal as PrefixProposal
from tailrisk.proposalconfig import SystemPromptProposal as SystemPromptProposal
from tailrisk.proposalconfig import VectorProposal as VectorProposal
from tailrisk.runconfig import RunConfig, working_copies
from tailrisk.trainingconfig import LoraTraining

ROUNDS_BESIDE = 3
"""Rounds that are not among ``budget.rounds``: pilots, and the last one."""
Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class SamplingConfig(Section):
    """The deployment's sampling settings: they define the probability that is estimated."""

    temperature: float = Field(default=1.0, gt=0.0, le=100.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    max_new_tokens: int = Field(default=128, ge=1)
    stop_token_ids: tuple[int, ...] | None = None
    """Ids that end a response; None: the tokenizer's and the generation config's end-of-sequence ids."""


class TargetConfig(Section):
    model: str
    adapter: str | None = None
    dtype: Dtype = "bfloat16"
    system_prompt: str | None = None
    sampling: SamplingConfig = SamplingConfig()
    device: str = "auto"


class PromptsConfig(Section):
    path: str
    limit: int | None = Field(default=None, ge=1)
    prompt: str | None = None
    id: str | None = None
    category: str | None = None
    group: str | None = None
    """Column of the group of prompts that are versions of one another (a base prompt and paraphrases)."""
    perturbation: str | None = None
    """Column of what was changed of a group's base prompt; empty for the base itself."""


class BudgetConfig(Section):
    """``draws`` and ``tokens`` (generated) are limits over the whole run, never exceeded. ``pilot``: draws a
    prompt gets first, spread over the components. ``batch``: most draws in one batch. ``target_share``: the
    least share of the target among a prompt's draws. ``rounds``: rounds after the pilot at most. ``shares``: of
    the components among a prompt's draws, ``learned`` from its hits and those of all prompts, or ``equal``
    (those of the pilot in every round), for comparison."""

    draws: int = Field(default=10_000, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    pilot: int = Field(default=64, ge=1)
    batch: int = Field(default=32, ge=1)
    rounds: int = Field(default=6, ge=1)
    target_share: float = Field(default=0.2, ge=0.1, le=1.0)
    objective: str = "relative"
    shares: Literal["learned", "equal"] = "learned"


class StopConfig(Section):
    """A prompt is done when its working interval's natural-log width is at most ``log_width``."""

    log_width: float = Field(default=0.7, gt=0.0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)


class TrackingConfig(Section):
    """``uri`` null: no tracking. A sqlite path is relative to the configuration file. ``register_as``: name of trained
    adapters in MLflow's model registry; null: the experiment's and the run's."""

    uri: str | None = "sqlite:///mlflow.db"
    experiment: str = "tailrisk"
    register_as: Name | None = None


class Config(Section):
    run: RunConfig = RunConfig()
    target: TargetConfig
    prompts: PromptsConfig
    proposals: tuple[ProposalConfig, ...] = ()
    judge: JudgeConfig
    strong_judge: StrongJudge | None = None
    """Null: the word of ``judge`` counts."""
    budget: BudgetConfig = BudgetConfig()
    stop: StopConfig = StopConfig()
    method: MethodConfig = MixtureMethod()
    """How the draws are planned; a bare name is short for ``{kind: name}``."""
    training: LoraTraining = LoraTraining()
    """How ``tailrisk train lora`` makes a proposal; an audit does not look at it."""
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _places: dict[str, Path] = PrivateAttr(default_factory=dict)

    @field_validator("method", mode="before")
    @classmethod
    def _method_by_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _grid(self) -> Config:
        if isinstance(self.method, PaperMethod):
            from tailrisk.grid import check_grid

            check_grid(self)
        if isinstance(self.method, SearchMethod):
            from tailrisk.searchgrid import check_grids

            check_grids(self)
        return self

    @model_validator(mode="after")
    def _names(self) -> Config:
        names = ["target", *(p.name for p in self.proposals)]
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            raise ValueError(f"proposals: doubled name {doubled[0]!r} ('target' is the target's own)")
        return self

    @model_validator(mode="after")
    def _device(self) -> Config:
        cut = {name for name, pool in self.cluster.pools.items() if pool.ranks > 1}
        devices: dict[str, str] = {}
        if cut - {"judges", "strong_judges"}:
            devices["target.device"] = self.target.device
        for at, judge in self.judges:
            pool = "judges" if at.startswith("judge") else "strong_judges"
            if pool in cut and isinstance(judge, ModelJudge):
                devices[f"{at}.device"] = judge.device
        for field, device in devices.items():
            if device != "auto":
                raise ValueError(
                    f"{field} is {device!r}, and Ray gives each process of a sharded model "
                    "(tensor_parallel, pipeline_parallel) its own GPU; leave it at auto"
                )
        return self

    @model_validator(mode="after")
    def _judges_cut(self) -> Config:
        pools: list[tuple[str, PoolConfig | None, JudgeConfig]] = [
            ("judges", self.cluster.judges, self.judge)
        ]
        if self.strong_judge is not None:
            pools.append(("strong_judges", self.cluster.strong_judges, self.strong_judge.judge))
        for name, pool, judge in pools:
            if pool is None or pool.ranks == 1:
                continue
            parts = list(judges_of(judge))
            if whole := [f"{at} (kind {j.kind})" for at, j in parts if j.has_model and not j.can_be_cut]:
                raise ValueError(
                    f"cluster.{name}: tensor_parallel and pipeline_parallel are for language models; {whole[0]} is none"
                )
            if not any(j.can_be_cut for _, j in parts):
                raise ValueError(
                    f"cluster.{name}: tensor_parallel and pipeline_parallel cut a judge's model, and a judge of kind "
                    f"{judge.kind!r} has none; leave them out"
                )
        return self

    @model_validator(mode="after")
    def _checkpoints(self) -> Config:
        if self.cluster.checkpoints is None:
            return self
        if self.method.kind != "mixture":
            raise ValueError(f"cluster.checkpoints is for method mixture, and method is {self.method.kind!r}")
        for proposal in self.proposals:
            if isinstance(proposal, CheckpointProposal) and (proposal.mix, proposal.switch) != (1.0, None):
                raise ValueError(
                    f"proposals: {proposal.name!r} is mixed with the target token by token, so its model must be "
                    "beside it; leave out cluster.checkpoints, or mix and switch"
                )
        return self

    @model_validator(mode="after")
    def _strong_judge(self) -> Config:
        strong = self.strong_judge
        if strong is None:
            if self.cluster.strong_judges is not None:
                raise ValueError("cluster.strong_judges is for a strong judge, and strong_judge is not given")
            return self
        if self.method.kind != "mixture":
            raise ValueError(
                f"strong_judge: its samples are planned with the rounds of method mixture, and method is "
                f"{self.method.kind!r}; leave out strong_judge, or method"
            )
        if self.judge.check is not None or strong.judge.check is not None:
            raise ValueError(
                "judge.check: with a strong judge it is that one's word that counts, and its own error is not "
                "corrected for; leave out judge.check and strong_judge.judge.check"
            )
        needed = math.ceil(strong.least * self.budget.draws) + self.budget.rounds + ROUNDS_BESIDE
        if strong.calls < needed:
            raise ValueError(
                f"strong_judge.calls is {strong.calls:,}, and {needed:,} are needed to read each of "
                f"{self.budget.draws:,} draws (budget.draws) with probability {strong.least:g} "
                "(strong_judge.least), and one more in each round: "
                "raise strong_judge.calls, or lower strong_judge.least or budget.draws"
            )
        return self

    @property
    def apart(self) -> tuple[CheckpointProposal, ...]:
        """Proposals whose models have workers of their own."""
        if self.cluster.checkpoints is None:
            return ()
        return tuple(p for p in self.proposals if isinstance(p, CheckpointProposal))

    @model_validator(mode="after")
    def _learned(self) -> Config:
        learned = self.learned
        if learned and self.method.kind != "mixture":
            raise ValueError(
                f"proposals: {learned[0].name!r} is fitted by the mixture's draws, and method is {self.method.kind!r}; "
                "leave method out, or fit it before (tailrisk train lora)"
            )
        if (share := sum(p.share for p in learned)) > 0.9:
            raise ValueError(
                f"proposals: learned ones take {share:g} of the draws; leave a tenth for estimates"
            )
        return self

    @property
    def learned(self) -> tuple[LearnedProposal, ...]:
        """Proposals that are fitted before the estimates begin."""
        return tuple(p for p in self.proposals if isinstance(p, LearnedProposal))

    @property
    def judges(self) -> tuple[tuple[str, SingleJudge], ...]:
        """All judges, each with its place in the configuration: the parts of one that is made of others too."""
        strong = self.strong_judge
        second = () if strong is None else judges_of(strong.judge, "strong_judge.judge")
        return (*judges_of(self.judge), *second)

    @property
    def adapters(self) -> list[str]:
        """All adapters as they are named, the target's own and those of proposals."""
        own = [] if self.target.adapter is None else [self.target.adapter]
        changes = (c for p in self.proposals for c in p.changes if isinstance(c, LoraChange))
        return list(dict.fromkeys([*own, *(c.adapter for c in changes if c.adapter != "target")]))

    def fit_folder(self, name: str) -> Path:
        """Where the learned proposal of this name has its draws and adapters: beside the run folder."""
        return self.run_folder.with_name(f"{self.run.name}.{name}")

    def fit_draws(self, proposal: LearnedProposal) -> int:
        """Draws of the budget that go to each round of its fit."""
        return int(proposal.share * self.budget.draws) // proposal.rounds

    @property
    def base(self) -> Path:
        """The folder that relative paths are relative to."""
        return self._base

    def at(self, base: Path) -> Config:
        """The same configuration with its paths read relative to ``base``."""
        copy = self.model_copy()
        copy._base = base
        return copy

    def with_places(self, places: dict[str, Path]) -> Config:
        """The same configuration, where each of these names means a place on this machine."""
        copy = self.model_copy()
        copy._places = {**self._places, **places}
        return copy

    def resolve(self, path: str) -> Path:
        """A path of the configuration, or a name with a place of its own, as an absolute path."""
        if path in self._places:
            return self._places[path]
        return (self.base / Path(path).expanduser()).resolve()

    @property
    def component_names(self) -> tuple[str, ...]:
        """Names of the laws that are drawn from and scored; component 0 is the target."""
        if isinstance(self.method, PaperMethod):
            from tailrisk.grid import cell_names

            return ("target", *cell_names(self))
        if isinstance(self.method, SearchMethod):
            from tailrisk.searchgrid import search_cells

            return ("target", *(cell.name for cell in search_cells(self)))
        return ("target", *(p.name for p in self.proposals))

    @property
    def run_dir(self) -> Path:
        """The folder of run folders on this machine: that of working copies, where ``run.dir`` is an address."""
        return working_copies(self.run.dir) if self.run.remote else self.resolve(self.run.dir)

    @property
    def run_folder(self) -> Path:
        return self.run_dir / self.run.name
