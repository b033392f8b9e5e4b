"""Ray, and only here: sessions, actors, pools, and the executor that runs an audit's batches on them.

``ray_session`` starts or joins a cluster, ``RayExecutor`` runs batches on it, ``RayJudges`` has answers judged alone.
Importing this package does not import Ray; the names are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrisk.cluster.executor import RayExecutor
    from tailrisk.cluster.judges import RayJudges
    from tailrisk.cluster.session import ray_session

__all__ = ["RayExecutor", "RayJudges", "ray_session"]


def __getattr__(name: str) -> Any:
    if name == "RayExecutor":
        from tailrisk.cluster.executor import RayExecutor

        return RayExecutor
    if name == "RayJudges":
        from tailrisk.cluster.judges import RayJudges

        return RayJudges
    if name == "ray_session":
        from tailrisk.cluster.session import ray_session

        return ray_session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
