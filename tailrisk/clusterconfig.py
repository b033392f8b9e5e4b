"""The part of the configuration that says where the work is done: by how many workers, and on which nodes.

Nothing here decides on numbers: an audit may go on with other workers.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from tailrisk.nodelabels import as_bytes, checked_labels
from tailrisk.proposalconfig import Section

Memory = Annotated[
    int,
    BeforeValidator(as_bytes),
    Field(ge=2**20, le=2**47),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
]
Labels = Annotated[dict[str, str], AfterValidator(checked_labels)]


class Parallel(NamedTuple):
    """``tensor`` pieces of every layer times ``pipeline`` parts of the stack of layers, a process each."""

    tensor: int = 1
    pipeline: int = 1

    @property
    def ranks(self) -> int:
        return self.tensor * self.pipeline


class PoolConfig(Section):
    """Workers of one role: between ``min`` and ``max`` of them, as there is work, and what each asks of its node.

    One worker is ``tensor_parallel`` times ``pipeline_parallel`` processes on one node, each with a part of every
    model, for models that one GPU does not hold; what is asked for is for each process.
    """

    min: int = Field(default=1, ge=0)
    """Workers that are kept; 0 is for judges that need no node while there is nothing to judge."""
    max: int = Field(default=1, ge=1)
    """Workers that there are at most."""
    num_cpus: float = Field(default=1.0, ge=0.0)
    """What Ray counts for a process; it holds none to it."""
    num_gpus: float = Field(default=0.0, ge=0.0)
    """A share of one GPU (0.5), or whole ones."""
    tensor_parallel: int = Field(default=1, ge=1)
    """Pieces that every layer is cut into, a process each."""
    pipeline_parallel: int = Field(default=1, ge=1)
    """Parts that the stack of layers is cut into; the two multiply."""
    memory: Memory | None = None
    """Bytes, or a number with a unit (``40GiB``)."""
    accelerator: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The GPU's type as Ray names it (``H100``)."""
    labels: Labels = Field(default_factory=dict)
    """What the node's labels must be, in Ray's words: ``{ray.io/market-type: spot}``; also ``!spot``, ``in(a,b)``,
    ``!in(a,b)``."""
    fallback: tuple[Labels, ...] = ()
    """Other labels that will do, tried in order where no node has these."""
    idle_s: float = Field(default=60.0, ge=0.0)
    """Seconds without work after which a worker above ``min`` is let go."""

    @model_validator(mode="after")
    def _possible(self) -> PoolConfig:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is below min ({self.min})")
        if self.num_gpus > 1 and not self.num_gpus.is_integer():
            raise ValueError(f"num_gpus ({self.num_gpus:g}): a worker has a share of one GPU, or whole ones")
        if any(0 < n < 1e-4 for n in (self.num_cpus, self.num_gpus)):
            raise ValueError("num_cpus and num_gpus: Ray counts in steps of 0.0001; give 0 or more than that")
        if self.accelerator is not None and self.num_gpus == 0:
            raise ValueError(
                f"accelerator ({self.accelerator}) is the type of a GPU, and num_gpus is 0; set num_gpus"
            )
        if self.fallback and not self.labels:
            raise ValueError("fallback is for workers that find no node with labels, and there are no labels")
        if not all(self.fallback):
            raise ValueError("fallback: empty labels fit every node; leave them out, with labels, for that")
        return self

    @model_validator(mode="after")
    def _whole(self) -> PoolConfig:
        if self.ranks > 1 and self.num_gpus not in (0.0, 1.0):
            raise ValueError(
                f"num_gpus is {self.num_gpus:g}, and each of the {self.ranks} processes of a sharded model uses one "
                "GPU of its own: set it to 1 (or 0, to run on CPUs)"
            )
        if self.ranks > 1 and not (self.num_cpus or self.num_gpus):
            raise ValueError("num_cpus and num_gpus are both 0; a sharded model is placed by one of them")
        if self.ranks > 1 and self.fallback:
            raise ValueError(
                "fallback: Ray places the processes of a sharded model by labels alone; leave it out"
            )
        return self

    @property
    def parallel(self) -> Parallel:
        """How the models of one worker are cut."""
        return Parallel(self.tensor_parallel, self.pipeline_parallel)

    @property
    def ranks(self) -> int:
        """Processes of one worker, all on one node."""
        return self.parallel.ranks


class ClusterConfig(Section):
    """Where the work is done. An audit may go on with other workers, elsewhere."""

    address: str = "local"
    """``local`` starts and stops a Ray of its own; ``auto`` or host:port joins one."""
    models: PoolConfig = PoolConfig(num_cpus=2)
    """Workers that draw and score."""
    checkpoints: PoolConfig | None = None
    """Workers that have the models of checkpoint proposals; null: the target's have them too."""
    judges: PoolConfig = PoolConfig(num_cpus=0)
    """Workers that judge."""
    strong_judges: PoolConfig | None = None
    """Workers of ``strong_judge``; null: as many, of the same size, as ``judges``."""
    batch_timeout_s: float = Field(default=1800.0, gt=0.0)
    """Seconds after which a batch counts as hanging."""
    retries: int = Field(default=3, ge=0)
    """How often a batch may end its worker, or hang, before it is given up."""
    wait_for_nodes_s: float | None = Field(default=None, gt=0.0)
    """How long a pool may be without any worker that has a node, at the start or when all are lost; null: 30 minutes
    on a cluster that brings up nodes by itself, one minute on any other."""

    @model_validator(mode="after")
    def _models_there(self) -> ClusterConfig:
        for name, pool in self.pools.items():
            if pool.min < 1 and name not in ("judges", "strong_judges"):
                raise ValueError(
                    f"{name}.min is 0, and an audit draws from its beginning to its end, with laws that the first "
                    "worker tells of; give 1 or more (judges may have 0)"
                )
        return self

    @property
    def pools(self) -> dict[str, PoolConfig]:
        """Those that there are, by name."""
        apart = {} if self.checkpoints is None else {"checkpoints": self.checkpoints}
        strong = {} if self.strong_judges is None else {"strong_judges": self.strong_judges}
        return {"models": self.models, **apart, "judges": self.judges, **strong}
