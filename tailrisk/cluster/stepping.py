"""One step of the pools of an executor: what time brings about, a wait for the workers, what they have done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from tailrisk.cluster.group import ready
from tailrisk.cluster.pool import Pool
from tailrisk.cluster.tasks import Outcome
from tailrisk.errors import ClusterError

TICK_S = 0.5
"""The longest wait: deadlines are looked at in between."""


def step(pools: Sequence[Pool], *, wait_s: float = TICK_S) -> list[Outcome]:
    """What has happened in the pools; waits for something at most ``wait_s`` seconds, not where time alone brought it.

    Raises:
        ClusterError: the connection to Ray is gone, or what ``Pool.handle`` raises.
    """
    from ray.exceptions import RayError

    try:
        outcomes = [outcome for pool in pools for outcome in pool.tend()]
        done = _wait(pools, 0.0 if outcomes else wait_s)
        return outcomes + [outcome for pool in pools for outcome in pool.handle(done)]
    except (RayError, ConnectionError) as error:
        raise ClusterError(
            f"the connection to Ray was lost ({type(error).__name__}); "
            "what is in the log is safe: run the same command again to resume"
        ) from error


def _wait(pools: Sequence[Pool], timeout_s: float) -> set[Any]:
    """The references of the pools that are finished; waits for the first at most ``timeout_s`` seconds."""
    import ray

    refs = [ref for pool in pools for ref in pool.refs()]
    if not refs:
        time.sleep(min(timeout_s, 0.05))
        return set()
    done = ready(refs)
    if not done and timeout_s > 0:
        ray.wait(refs, num_returns=1, timeout=timeout_s)
        done = ready(refs)
    return done
