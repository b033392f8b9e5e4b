r"""What each family of proposals is worth on the quickstart's target, alone and all together.

    python examples/benchmarks/proposals.py --quick --json families.json
    python examples/benchmarks/proposals.py --json examples/benchmarks/proposals.json --page examples/benchmarks

Every component draws a pool of answers for each prompt, scored under all components (the long part: an hour of one
core in the full form; ``--pool`` keeps it for the next time). From these, whole audits are replayed: the driver as it
is, with the target and one family, or with all families, by learned shares of the components or by equal ones.
Asked is how many draws a prompt takes for a factor of two with probability 95 %, how wide the intervals are with a
fixed number of draws, and how many estimates are believed. The truth is the estimate from all draws of the pool.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1] / "tests"
sys.path[:0] = [str(HERE), str(TESTS)]

from families import measure, page  # noqa: E402
from families.pool import ROOT, configuration, gather  # noqa: E402

PROMPTS = ("sr285", "sr207", "sr137", "sr131", "sr192", "sr074", "sr012", "sr018")
"""From 7e-2 to 1e-6."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two prompts, few draws: under five minutes")
    parser.add_argument("--prompts", help="ids of the quickstart's prompts; default: " + ",".join(PROMPTS))
    parser.add_argument("--pool", type=Path, help="folder that keeps the draws (default: runs/families)")
    parser.add_argument("--json", type=Path, help="write the results")
    parser.add_argument("--page", type=Path, help="folder for proposals.md")
    args = parser.parse_args(argv)
    prompts = (args.prompts or ",".join(PROMPTS[1::4] if args.quick else PROMPTS)).split(",")
    own, each, times = (16, 8, 10) if args.quick else (200, 120, 50)
    folder = args.pool or ROOT / "runs" / ("families-quick" if args.quick else "families")
    config, families = configuration()
    pools = gather(config, prompts, own, each, folder, lambda line: print(line, flush=True))
    began = time.monotonic()
    compared = measure.compare(config, pools, families, times=times)
    results: dict[str, Any] = {
        "form": "quick" if args.quick else "full",
        "draws_of_pool": {"target": own, "each_proposal": each},
        "families": {name: list(members) for name, members in families.items()},
        **compared,
        "seconds": {
            "pool": round(sum(p.seconds for p in pools), 1),
            "audits": round(time.monotonic() - began, 1),
        },
    }
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print("\n".join(page.lines(results)))
    if args.page:
        args.page.mkdir(parents=True, exist_ok=True)
        (args.page / "proposals.md").write_text("\n".join(page.page(results)) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
