r"""What a learned adapter is worth beside hand-made proposals, on the quickstart and where every answer can be listed.

    python examples/benchmarks/learned.py --quick --json learned.json
    python examples/benchmarks/learned.py --json examples/benchmarks/learned.json

Quickstart: one round of ``tailrisk train lora`` on top of the target, and one on top of the prefix that shuts
refusals out, both fitted to the same draws. Asked of every proposal is the divergence KL(q*||q) by the harmful
answers to the prompts kept aside, and how many draws of these prompts an estimate takes for a factor of two with
probability 95 %, a fifth of them the target's. Exact: the same for a tiny Llama whose answers are all listed.

What fitting costs is counted in draws: those of the round, and the seconds of the fit by this machine's seconds a
draw, spread over ``AUDITED`` prompts. A full run takes an hour of one core or two; ``--out`` keeps draws and fits.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests")]

from families import exact, quickstart  # noqa: E402

AUDITED = 100
"""Prompts of the audit that the cost of a fit is spread over."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few prompts, one base: under five minutes")
    parser.add_argument("--out", type=Path, help="folder of draws and adapters (default: runs/learned)")
    parser.add_argument("--json", type=Path, help="write the results")
    args = parser.parse_args(argv)
    out = args.out or ROOT / "runs" / ("learned-quick" if args.quick else "learned")
    results = {
        "form": "quick" if args.quick else "full",
        "quickstart": compared(quickstart.measure(out / "quickstart", quick=args.quick)),
        "exact": compared(exact.measure(out / "exact", quick=args.quick)),
    }
    for part in ("quickstart", "exact"):
        print("\n".join(lines(part, results[part])))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def compared(part: dict[str, Any]) -> dict[str, Any]:
    """Adds to a part what each learned law needs of what the best hand-made one needs, prompt by prompt."""
    rows, most = part["rows"], part["most"]
    made = [r["needed"] for r in rows if not r["learned"]]
    best = [min((n for n in column if n is not None), default=most) for column in zip(*made, strict=True)]
    for row in rows:
        if row["learned"]:
            fit = part["fits"][row["name"]]
            fit["worth"] = fit["draws"] + round(fit["seconds"] / part["seconds_a_draw"])
            needed = [n or most for n in row["needed"]]
            each = fit["worth"] / AUDITED
            row["of_the_best"] = {
                "not_counted": round(sum(needed) / sum(best), 3),
                "counted": round(sum(n + each for n in needed) / sum(best), 3),
            }
    return {**part, "best_hand_made": best}


def lines(name: str, part: dict[str, Any]) -> list[str]:
    out = [f"{name}: draws for a factor of two (- : over {part['most']})", f"{'':28}{'nats':>7}  draws"]
    for row in part["rows"]:
        nats = "inf" if row["nats"] is None else f"{row['nats']:.2f}"
        needed = " ".join(f"{n or '-':>5}" for n in row["needed"])
        out.append(f"{row['name']:28}{nats:>7}  {needed}")
    for row in part["rows"]:
        if row["learned"]:
            ratio, worth = row["of_the_best"], part["fits"][row["name"]]["worth"]
            out.append(
                f"{row['name']}: {ratio['not_counted']:.2f} times the draws of the best hand-made one, "
                f"{ratio['counted']:.2f} with the fit ({worth:,} draws' worth over {AUDITED} prompts)"
            )
    return out


if __name__ == "__main__":
    raise SystemExit(main())
