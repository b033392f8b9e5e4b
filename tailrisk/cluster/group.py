"""One worker as one or several actors: the ranks of a sharded model live and die together.

A group of ranks is placed on one node (a placement group with STRICT_PACK), every call goes to all of them, and
its answer is that of rank 0 once all have answered. When one of them ends, the others wait for it in vain: the
whole group is at an end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from tailrisk.cluster import resources
from tailrisk.cluster.nodes import node_of
from tailrisk.config import PoolConfig
from tailrisk.errors import TailriskError


class Place(NamedTuple):
    """Where an actor runs, and, of rank 0, the address at which its group meets."""

    worker: str
    endpoint: str


class RankLostError(Exception):
    """A rank ended or went astray: the calls in flight of all ranks of its group are lost."""

    def __init__(self, how: str, *, preempted: bool) -> None:
        super().__init__(how)
        self.preempted = preempted


class Answers:
    """What the ranks answer to one call, as it comes in."""

    def __init__(self, refs: Sequence[Any]) -> None:
        self._refs = list(refs)
        self._open = set(self._refs)
        self._values: dict[Any, Any] = {}
        self._raised: BaseException | None = None
        self._lost: RankLostError | None = None

    @property
    def refs(self) -> Collection[Any]:
        """Those that have not come in."""
        return self._open

    @property
    def settled(self) -> bool:
        """Every rank has answered, or one is lost."""
        return self._lost is not None or not self._open

    def take(self, done: set[Any]) -> None:
        """Takes in those of ``done`` that belong to this call."""
        if self._open.isdisjoint(done):
            return
        from ray.exceptions import RayError, RayTaskError

        for ref in [r for r in self._refs if r in self._open and r in done]:
            self._open.discard(ref)
            try:
                self._values[ref] = _get(ref)
            except RayTaskError as error:
                self._raised = self._raised or error
                if len(self._refs) > 1 and not isinstance(error.cause, TailriskError):
                    # The other ranks may wait for this one; what data do to a model, they do on every rank.
                    self._lose(f"a rank raised {type(error.cause).__name__}: {last_line(error)}", False)
            except RayError as error:
                self._lose(last_line(error), bool(getattr(error, "preempted", False)), error)

    def value(self) -> list[Any]:
        """All values, in the order of ranks; to be asked when ``settled``.

        Raises RankLostError, or the RayTaskError of a rank that raised.
        """
        if self._lost is not None:
            raise self._lost
        if self._raised is not None:
            raise self._raised
        return [self._values[ref] for ref in self._refs]

    def _lose(self, how: str, preempted: bool, cause: BaseException | None = None) -> None:
        self._lost = self._lost or RankLostError(how, preempted=preempted)
        self._lost.__cause__ = self._lost.__cause__ or cause


class Group:
    """The actors of one worker, rank 0 first, and what holds their place."""

    def __init__(self, actors: Sequence[Any], placement: Any = None) -> None:
        self._actors = list(actors)
        self._placement = placement

    @property
    def node(self) -> str:
        """The id of the node that all of them are on; '' where Ray does not know it."""
        return node_of(self._actors[0])

    def ping(self) -> Answers:
        return self.call("ping", ())

    def build(self, places: Sequence[Place]) -> Answers:
        return self.call("build", (places[0].endpoint,))

    def call(self, method: str, args: tuple[Any, ...]) -> Answers:
        return Answers([getattr(actor, method).remote(*args) for actor in self._actors])

    def kill(self) -> None:
        """Ends the actors, whatever they are doing, and gives back their place; safe for dead ones."""
        import ray

        for actor in self._actors:
            ray.kill(actor, no_restart=True)
        if self._placement is not None:
            ray.util.remove_placement_group(self._placement)


def make_group(actor: type, pool: PoolConfig, args: tuple[Any, ...], at_once: int = 1) -> Group:
    """Submits a worker of ``pool``: one actor of the class, which runs ``at_once`` calls side by side, or one for each
    rank, which then learns its own."""
    import ray
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from tailrisk.cluster.actors import Shard

    once = {"max_restarts": 0, "max_task_retries": 0}
    remote: Any = ray.remote(actor)
    if pool.ranks == 1:
        beside = {} if at_once == 1 else {"max_concurrency": at_once}
        return Group([remote.options(**resources.options(pool), **once, **beside).remote(*args)])
    bundles = [resources.demand(pool)] * pool.ranks
    where: dict[str, Any] = {}
    if pool.labels:
        where["bundle_label_selector"] = [dict(pool.labels)] * pool.ranks
    placement = placement_group(bundles, strategy="STRICT_PACK", **where)
    actors = []
    for rank in range(pool.ranks):
        strategy = PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=rank)
        options = {**resources.amounts(pool), **once, "scheduling_strategy": strategy}
        shard = Shard(pool.parallel, rank, pool.num_gpus > 0)
        actors.append(remote.options(**options).remote(*args, shard))
    return Group(actors, placement)


def last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def ready(refs: Collection[Any]) -> set[Any]:
    """Those of the references that have come in by now."""
    import ray

    return set(ray.wait(list(refs), num_returns=len(refs), timeout=0)[0]) if refs else set()


def _get(ref: Any, timeout_s: float = 30.0) -> Any:
    import ray

    return ray.get(ref, timeout=timeout_s)
