r"""How near a learned adapter comes to the law of harmful answers, beside the quickstart's own proposals.

    python examples/benchmarks/learned.py --quick --json learned.json
    python examples/benchmarks/learned.py --json examples/benchmarks/learned.json

One round of ``tailrisk train lora`` on the quickstart, on top of each of the bases: the draws are made once. Asked is
the divergence KL(q*||q) in nats, by the harmful answers to the prompts kept aside: of every proposal that drew, from
the audit's log, and of the adapters, from the fits. ``seconds`` of a fit are also given in draws of this machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tailrisk.audit.recovery import rebuild_folder
from tailrisk.cli.lorarounds import drawing_config, learn
from tailrisk.cli.wiring import on_ray
from tailrisk.configfile import load_config
from tailrisk.prompts import load_prompts
from tailrisk.stats.estimators import contributions
from tailrisk.stats.tempering import hit_divergence
from tailrisk.training.loradata import split_prompts

ROOT = Path(__file__).resolve().parents[2]
BASES = ("target", "unlearned")
SETTINGS = (
    "tracking.uri=null",
    "training.rounds=1",
    "training.learning_rate=0.001",
    "training.kl=0",
    "training.patience=1",
)
FULL = ("training.draws=1800", "training.epochs=4")
QUICK = ("prompts.limit=8", "training.draws=560", "training.epochs=1")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="eight prompts, one base: under five minutes")
    parser.add_argument("--out", type=Path, help="folder of draws and adapters (default: runs/learned)")
    parser.add_argument("--json", type=Path, help="write the results")
    args = parser.parse_args(argv)
    out = args.out or ROOT / "runs" / ("learned-quick" if args.quick else "learned")
    settings = (*SETTINGS, *(QUICK if args.quick else FULL))
    path = ROOT / "examples" / "quickstart" / "audit.yaml"
    console = Console(stderr=True, highlight=False)
    fits = {}
    for base in BASES[:1] if args.quick else BASES:
        config = load_config(path, (*settings, f"training.base={base}"))
        (done,) = learn(config, out, console, live=False, workers=on_ray)
        assert done.card is not None
        fits[base] = {key: done.card[key] for key in ("divergence", "data", "epochs")}
    results = {
        "form": "quick" if args.quick else "full",
        **components(load_config(path, settings), out),
        "fits": fits,
    }
    for base, fit in fits.items():
        seconds = sum(epoch["seconds"] for epoch in fit["epochs"])
        fit["seconds"] = round(seconds, 1)
        fit["draws_worth"] = round(seconds / results["seconds_a_draw"])
        print(f"{'on ' + base:24}{fit['divergence']['after']:6.2f} nats, {fit['seconds']:.0f} s to fit")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def components(config: Any, out: Path) -> dict[str, Any]:
    """Mean divergence over the prompts kept aside of every component of the first round."""
    prompts = load_prompts(config)
    aside = split_prompts(prompts, config.training.held_out, config.run.seed)
    state = rebuild_folder(drawing_config(config, out, 1, None), prompts, out / "draws-1")
    assert state is not None
    rows = []
    for prompt, ledger in state.ledgers.items():
        parts = contributions(ledger.rounds, corrected=state.laws.corrected)
        if prompt in aside and len(parts.part):
            log_parts, whole = np.log(parts.part), float(np.log(parts.part.sum()))
            rows.append([hit_divergence(log_parts, parts.log_q[:, 0] - q, whole) for q in parts.log_q.T])
    far = dict(zip(state.laws.names, np.mean(rows, axis=0), strict=True))
    for name, nats in far.items():
        print(f"{name:24}{nats:6.2f} nats")
    seconds = sum(numbers.seconds for ledger in state.ledgers.values() for _, numbers in ledger.numbers())
    return {
        "draws": state.draws,
        "seconds_a_draw": round(seconds / state.draws, 4),
        "held_out": len(rows),
        # A component that cannot produce some harmful answer is infinitely far.
        "components": {
            name: round(float(nats), 3) if np.isfinite(nats) else None for name, nats in far.items()
        },
    }


if __name__ == "__main__":
    raise SystemExit(main())
