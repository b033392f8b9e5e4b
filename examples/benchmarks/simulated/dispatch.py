"""How many batches a second go through the executor when drawing and judging take no time."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from simulated.world import MakeLaws, WordJudge, config_of, write_prompts
from tailrisk.cluster import RayExecutor, ray_session
from tailrisk.prompts import load_prompts
from tailrisk.records import Batch


def dispatch(batches: int, *, size: int = 32, replicas: int = 2) -> dict[str, Any]:
    """Rate and driver CPU over ``batches`` batches of ``size`` draws, after a warm-up."""
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        write_prompts(folder / "prompts.jsonl", 100)
        config = config_of(folder, draws=10_000, models=replicas)
        prompts = load_prompts(config)

        def some(n: int) -> list[Batch]:
            return [
                Batch(
                    prompt_id=prompts[i % 100].id, component=i % 2, index=i // 100, round=0, size=size, seed=i
                )
                for i in range(n)
            ]

        with (
            ray_session(config.cluster),
            RayExecutor(config, prompts, laws_factory=MakeLaws(), judge_factory=WordJudge) as executor,
        ):
            list(executor.run(some(200)))
            cpu, began = time.process_time(), time.monotonic()
            done = sum(1 for _ in executor.run(some(batches)))
            cpu, wall = time.process_time() - cpu, time.monotonic() - began
    return {"batches": done, "size": size, "a_second": done / wall, "driver_cpu_us_a_batch": 1e6 * cpu / done}
