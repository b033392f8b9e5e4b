"""A Ray process on the driver's own node that computes for it: statistics of prompts that nothing waits for yet.

On the driver's node, so that every number comes out of the same machine: another processor's libraries may round
another way, and a run that is resumed would then differ in a last digit.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

from tailrisk.cluster.group import ready

WAIT_S = 120.0
"""For what takes a tenth of a second, on a machine that may be full of other work."""


class Beside:
    """Implements ``tailrisk.audit.protocols.Beside``. Needs a session; the process is made with the first call, and
    anew with the first one after it was lost."""

    def __init__(self) -> None:
        self._actor: Any = None

    def start(self, function: Callable[[Any], Any], argument: Any) -> Running:
        if self._actor is None:
            self._actor = _make()
        # One string of bytes: Ray would take every array apart.
        call = pickle.dumps((function, argument), protocol=pickle.HIGHEST_PROTOCOL)
        return Running(self._actor.compute.remote(call), self.close)

    def close(self) -> None:
        import ray

        if self._actor is not None:
            ray.kill(self._actor)
            self._actor = None


class Running:
    """``lost`` is called where the process ended, or does not answer."""

    def __init__(self, ref: Any, lost: Callable[[], None]) -> None:
        self._ref = ref
        self._lost = lost

    @property
    def done(self) -> bool:
        return bool(ready([self._ref]))

    def value(self) -> Any:
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return pickle.loads(ray.get(self._ref, timeout=WAIT_S))
        except RayTaskError:
            raise
        except RayError:
            self._lost()
            raise


class Calculator:
    """The process. It holds nothing."""

    def __init__(self) -> None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = "1"

    def compute(self, call: bytes) -> bytes:
        function, argument = pickle.loads(call)
        return pickle.dumps(function(argument), protocol=pickle.HIGHEST_PROTOCOL)


def _make() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Calculator).options(num_cpus=0, max_restarts=0, scheduling_strategy=here).remote()
