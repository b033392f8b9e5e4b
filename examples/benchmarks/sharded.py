"""A real model cut into processes, against the same model whole: log-probabilities and an audit's estimates.

    python examples/benchmarks/sharded.py [--quick] [--json FILE]

The quickstart's target (SmolLM2-135M-Instruct with its adapter) and proposals, once in one process, once with every
layer cut into three (it has three key-value heads), once with its layers dealt out over two processes; gloo on CPUs.

``laws``: the same answers are scored in float32 by all, token by token, under every law of the quickstart; the largest
difference is shown. ``audits``: the quickstart is run three times with the same seed, in bfloat16 as it is, and the
intervals of each prompt are held against each other. Several processes share this machine's cores here: this is about
what they compute, not about speed.
Exit status 1: a log-probability differs by more than 0.001, or two intervals of a prompt do not overlap.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.multiprocessing.spawn import start_processes

from tailrisk.config import Parallel
from tailrisk.configfile import load_config
from tailrisk.models import sharding
from tailrisk.models.laws import LawSet
from tailrisk.models.scoring import token_log_probs
from tailrisk.prompts import load_prompts
from tailrisk.proposals import build_laws

QUICKSTART = Path(__file__).parents[1] / "quickstart" / "audit.yaml"
WAYS = {"whole": Parallel(), "tensor x3": Parallel(3, 1), "pipeline x2": Parallel(1, 2)}
GOAL = 1e-3
Answers = list[list[NDArray[np.int32]]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer answers, prompts and draws")
    parser.add_argument("--parts", nargs="*", choices=("laws", "audits"), default=["laws", "audits"])
    parser.add_argument("--prompts", type=int, default=26, help="of the quickstart's, for the audits")
    parser.add_argument("--draws", type=int, default=4000, help="of each audit")
    parser.add_argument(
        "--dtype", default="bfloat16", help="of the audits; float32 where bfloat16 is emulated"
    )
    parser.add_argument("--ways", nargs="*", choices=list(WAYS)[1:], help="of cutting, for the audits")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scored: dict[str, dict[str, float]] = {}
        if "laws" in options.parts:
            scored = laws(Path(folder), prompts=2 if options.quick else 6, draws=4 if options.quick else 16)
        for way, by_law in scored.items():
            print(f"{way}: largest difference of a token's log-probability")
            for law, difference in by_law.items():
                print(f"  {law:<12}{difference:.1e}")
        size = (3, 150) if options.quick else (options.prompts, options.draws)
        ways = ["whole", *(options.ways or list(WAYS)[1:])]
        audited: dict[str, dict[str, Any]] = {}
        if "audits" in options.parts:
            audited = audits(Path(folder), ways, prompts=size[0], draws=size[1], dtype=options.dtype)
    for way, found in audited.items():
        print(
            f"{way}: {found['overlapping']} of {found['prompts']} intervals overlap, {found['equal_draws']:.1%} "
            f"of draws are the same, {found['seconds']:.0f} s"
        )
    met = all(d <= GOAL for by_law in scored.values() for d in by_law.values())
    met = met and all(found["overlapping"] == found["prompts"] for found in audited.values())
    if options.json:
        result = {"log_prob_differences": scored, "audits": audited, "goal": GOAL, "goals_met": met}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if met else 1


def laws(folder: Path, *, prompts: int, draws: int) -> dict[str, dict[str, float]]:
    """Largest difference from the whole model's log-probability of a token, by way and law."""
    whole = quickstart_laws()
    asked = load_prompts(load_config(QUICKSTART, ()))[:prompts]
    answers = [
        [t for k in range(len(whole.names)) for t in whole.sample(prompt, k, draws, 11 + i).tokens]
        for i, prompt in enumerate(asked)
    ]
    expected = scores(whole, answers)
    result = {}
    for way, parallel in WAYS.items():
        if parallel.ranks == 1:
            continue
        place = folder / way
        start_processes(
            _rank, args=(parallel, sharding.meeting_place(), place, answers), nprocs=parallel.ranks
        )
        found = torch.load(place.with_suffix(".scores"), weights_only=False)
        result[way] = {
            law: max(float(np.abs(a - b).max()) for a, b in zip(expected[law], found[law], strict=True))
            for law in whole.names
        }
    return result


def _rank(rank: int, parallel: Parallel, endpoint: str, place: Path, answers: Answers) -> None:
    torch.set_num_threads(1)
    sharding.join(parallel, rank, endpoint, 600.0)
    found = scores(quickstart_laws(), answers)
    if rank == 0:
        torch.save(found, place.with_suffix(".scores"))
    sharding.leave()


def quickstart_laws() -> LawSet:
    return build_laws(load_config(QUICKSTART, ("target.dtype=float32",)))


def scores(laws: LawSet, answers: Answers) -> dict[str, list[NDArray[np.float64]]]:
    """Log-probabilities of all tokens of all answers, by law."""
    prompts = load_prompts(load_config(QUICKSTART, ()))
    return {
        law.name: [
            values
            for prompt, texts in zip(prompts, answers, strict=False)
            for values in token_log_probs(
                law.view, laws.prompt_ids(prompt, law.view), texts, laws.limits.warp
            ).tokens
        ]
        for law in laws.laws
    }


def audits(
    folder: Path, ways: Sequence[str], *, prompts: int, draws: int, dtype: str
) -> dict[str, dict[str, Any]]:
    """The quickstart with each of these ways of cutting its model, held against the first of them, the whole one."""
    found = {}
    for way in ways:
        parallel = WAYS[way]
        settings = {
            "target.dtype": dtype,
            "run.dir": folder,
            "run.name": way.replace(" ", "-"),
            "tracking.uri": "null",
            "prompts.limit": prompts,
            "budget.draws": draws,
            "budget.pilot": min(64, draws // (2 * prompts)),
            "cluster.models.num_cpus": 2 if parallel.ranks == 1 else 1,
            "cluster.models.tensor_parallel": parallel.tensor,
            "cluster.models.pipeline_parallel": parallel.pipeline,
        }
        command = [sys.executable, "-m", "tailrisk", "audit", str(QUICKSTART), "--quiet"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        began = time.monotonic()
        code = subprocess.run(command, check=False).returncode
        if code not in (0, 3):
            raise SystemExit(f"{' '.join(command)} ended with {code}")
        found[way] = read(folder / way.replace(" ", "-")) | {"seconds": time.monotonic() - began}
    whole = found.pop("whole")
    return {
        way: {
            "prompts": len(whole["intervals"]),
            "overlapping": sum(
                low <= whole["intervals"][i][1] and whole["intervals"][i][0] <= high
                for i, (low, high) in one["intervals"].items()
            ),
            "equal_draws": np.mean(
                [one["draws"].get(k) == text for k, text in whole["draws"].items()]
            ).item(),
            "seconds": one["seconds"],
            "seconds_whole": whole["seconds"],
        }
        for way, one in found.items()
    }


def read(run: Path) -> dict[str, Any]:
    """Intervals by prompt (working ones where there are any) and token ids by draw."""
    import pyarrow.parquet as pq

    estimates = json.loads((run / "estimates.json").read_text())["estimates"]
    rows = pq.read_table(run / "draws.parquet", columns=["batch_key", "draw", "token_ids"]).to_pylist()
    return {
        "intervals": {e["prompt_id"]: e["working"] or e["certified"] for e in estimates},
        "draws": {f"{r['batch_key']}/{r['draw']}": r["token_ids"] for r in rows},
    }


if __name__ == "__main__":
    sys.exit(main())
