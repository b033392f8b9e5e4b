"""Which nodes of the cluster go away: a notice of it is seen before their workers are lost."""

from __future__ import annotations

import time
from typing import Any

POLL_S = 1.0


class NodeWatch:
    """Asks Ray, once a second at most, what became of its nodes."""

    def __init__(self) -> None:
        self._asked = float("-inf")
        self._noticed: set[str] = set()
        self._dead: set[str] = set()

    def look(self) -> None:
        import ray
        from ray._private.state import state

        if time.monotonic() - self._asked < POLL_S:
            return
        self._noticed |= set(state.get_draining_nodes())
        self._dead = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
        self._asked = time.monotonic()

    def leaves(self, node: str) -> bool:
        """The node was told to end its work: pre-empted, or taken out of the cluster in an orderly way."""
        return node in self._noticed

    def dead(self, node: str) -> bool:
        return node in self._dead


def node_of(handle: Any) -> str:
    """The id of the node that an actor runs on; '' where Ray does not know it."""
    from ray._private.state import actors

    return (actors(handle._actor_id.hex()).get("Address") or {}).get("NodeID", "")
