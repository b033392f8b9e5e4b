"""Pieces for the tracking tests: configurations, estimates, and a stand-in for the driver's state."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tailrisk.config import Config
from tailrisk.records import Status
from tailrisk.stats import Estimate


def make_config(base: Path, uri: str | None, **cluster: Any) -> Config:
    return Config.model_validate(
        {
            "run": {"name": "t1"},
            "target": {"model": "tiny", "system_prompt": "x" * 9000},
            "prompts": {"path": "prompts.jsonl"},
            "proposals": [{"name": "rude", "kind": "system_prompt", "text": "Be rude."}],
            "judge": {"kind": "refusal"},
            "tracking": {"uri": uri, "experiment": "exp"},
            "cluster": cluster,
        }
    ).at(base)


def make_folder(base: Path) -> Path:
    folder = base / "runs" / "t1"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"identity": {"prompts": {"count": 2, "digest": "ab" * 32}}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def state(round_: int) -> Any:
    return SimpleNamespace(round=round_, tokens=100 * (round_ + 1), judge_calls=20 * (round_ + 1))


def outcome() -> Any:
    return SimpleNamespace(
        totals={"draws": 20, "mean_weight": {"value": 1.01, "se": None}, "objective": "relative"},
        search=None,
    )


def estimate(
    prompt_id: str = "p0", *, status: Status = Status.OK, relative_error: float | None = 0.2
) -> Estimate:
    return Estimate(
        prompt_id=prompt_id,
        category=None,
        estimate=0.01,
        working=(0.005, 0.02),
        certified=(0.0, 0.1),
        confidence=0.95,
        status=status,
        reasons=(),
        alarms=(),
        draws=10,
        target_draws=4,
        hits=3,
        undetermined=1,
        ess=12.0,
        k_hat=None,
        max_weight_share=0.1,
        kl=None,
        mean_weight=1.1,
        mean_weight_se=0.1,
        gain_vs_mc=None,
        components={},
        standard_error=0.002,
        relative_error=relative_error,
    )
