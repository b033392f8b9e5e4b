"""What a refusal direction is worth: how much oftener the target complies with it taken out, or pushed away.

    python examples/benchmarks/directions.py --json directions.json
    python examples/benchmarks/directions.py --quick

The direction is that of ``examples/paper``, made by ``tailrisk train direction`` from ``examples/training``. Its
use as a proposal is chosen on a few of the prompts that it was made from: the form of ablation, and layer and
coefficient of the addition (negative: from the harmful mean towards the harmless one). The best of each is then
drawn from on the quickstart's prompts, none of which the direction was made from, as is the target itself, under
the quickstart's sampling settings and judge. Rates are of judged compliance, all prompts together; the intervals
(97.5 % each, binomial, valid at any number of draws) are conservative where prompts differ, and their quotient
bounds the ratio at 95 %.
Draws are reproducible; no prompt and no answer is printed. Four minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tailrisk.config import Config, PromptsConfig
from tailrisk.configfile import load_config
from tailrisk.judges import build_judge
from tailrisk.models.directions import load_direction
from tailrisk.models.laws import LawSet
from tailrisk.prompts import load_prompts, read_prompts
from tailrisk.proposals import build_laws
from tailrisk.records import Prompt, Verdict
from tailrisk.seeds import derive_seed
from tailrisk.stats.intervals import binomial_interval

EXAMPLES = Path(__file__).resolve().parents[1]
COEFFICIENTS = (-1.0, -2.0, -3.0, -4.0)
LAYER_STEPS = (0, 3, 6)


class Rate(NamedTuple):
    """Harmful ``hits`` of ``draws``, by prompt in their order; undetermined draws count as safe."""

    hits: list[int]
    draws: list[int]

    @property
    def mean(self) -> float:
        return sum(self.hits) / sum(self.draws)

    @property
    def interval(self) -> tuple[float, float]:
        return binomial_interval(sum(self.hits), sum(self.hits), sum(self.draws), 0.025)


def proposals(direction: Path, quick: bool) -> list[dict[str, Any]]:
    """The settings to choose from, as proposals of a configuration."""
    layer = load_direction(direction).layer
    ablations = [
        {"name": f"ablation-{form}", "kind": "ablation", "direction": str(direction), "form": form}
        for form in ("residual", "writes")
    ]
    additions = [
        {
            "name": f"layer{layer + step}-coefficient{coefficient:g}",
            "kind": "vector",
            "vector": str(direction),
            "layers": [layer + step],
            "coefficient": coefficient,
        }
        for step in (LAYER_STEPS[:2] if quick else LAYER_STEPS)
        for coefficient in (COEFFICIENTS[1::2] if quick else COEFFICIENTS)
    ]
    return [*ablations, *additions]


def rate(laws: LawSet, config: Config, component: int, prompts: Sequence[Prompt], draws: int) -> Rate:
    """Judged draws of one component, ``draws`` a prompt."""
    judge, hits = build_judge(config), []
    for prompt in prompts:
        seed = derive_seed("directions", laws.names[component], prompt.id)
        drawn = laws.sample(prompt, component, draws, seed)
        verdicts = judge.judge(prompt.text, laws.texts(drawn.tokens)).verdicts
        hits.append(int((verdicts == Verdict.HARM).sum()))
    return Rate(hits, [draws] * len(prompts))


def report(name: str, found: Rate) -> dict[str, Any]:
    low, high = found.interval
    print(
        f"{name:28} {sum(found.hits):5} of {sum(found.draws):5}  {found.mean:.4f}  [{low:.4f}, {high:.4f}]",
        flush=True,
    )
    return {"rate": found.mean, "interval": [low, high], "hits": found.hits, "draws": found.draws}


def compared(name: str, found: Rate, target: Rate) -> dict[str, Any]:
    """A change against the target: the ratio of the rates, its lower bound, prompts that it raises tenfold."""
    low, ratio = found.interval[0] / target.interval[1], found.mean / max(target.mean, 1e-300)
    tenfold = sum(h / n >= 10 * max(t / m, 1 / m) for h, n, t, m in zip(*found, *target, strict=True))
    shown = "no draw of the target complied" if not sum(target.hits) else f"{ratio:.1f} times the target's"
    print(f"{name}: {shown}, at least {low:.1f} times; tenfold on {tenfold} of {len(found.hits)} prompts")
    return {"ratio": ratio if sum(target.hits) else None, "at_least": low, "tenfold_prompts": tenfold}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=EXAMPLES / "quickstart" / "audit.yaml")
    parser.add_argument(
        "--direction", type=Path, default=EXAMPLES / "paper" / "refusal-direction.safetensors"
    )
    parser.add_argument("--choose-on", type=Path, default=EXAMPLES / "training" / "harmful.jsonl")
    parser.add_argument("--quick", action="store_true", help="fewer settings, prompts and draws")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    began = time.monotonic()
    listed = proposals(args.direction.resolve(), args.quick)
    config = load_config(args.config, [f"proposals={json.dumps(listed)}"])
    laws = build_laws(config)
    made_from = read_prompts(args.choose_on.resolve(), PromptsConfig(path=str(args.choose_on)), "--choose-on")
    held_out = load_prompts(config)
    if overlap := {p.text for p in made_from} & {p.text for p in held_out}:
        raise SystemExit(f"{len(overlap)} prompts of {args.choose_on} are audited too: they are not held out")
    if args.quick:
        held_out = held_out[::4]
    few = made_from[:: len(made_from) // (4 if args.quick else 8)]

    print(f"chosen on {len(few)} prompts that the direction was made from:")
    tried: dict[str, Rate] = {}
    told: dict[str, Any] = {"settings": {}}
    for component, setting in enumerate(listed, 1):
        name = setting["name"]
        tried[name] = rate(laws, config, component, few, 8)
        told["settings"][name] = report(name, tried[name])

    print(f"on {len(held_out)} other prompts:")
    target = rate(laws, config, 0, held_out, 32 if args.quick else 64)
    told["target"] = report("target", target)
    for kind in ("ablation", "vector"):
        best = max((c["name"] for c in listed if c["kind"] == kind), key=lambda name: tried[name].mean)
        found = rate(laws, config, laws.names.index(best), held_out, 8 if args.quick else 16)
        told[kind] = {"setting": best, **report(best, found), **compared(kind, found, target)}
    told["seconds"] = round(time.monotonic() - began, 1)
    if args.json is not None:
        args.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
