"""Where the trained judge and the judge of a run agree, on the answers that the run drew. Prints no text.

    python examples/judge/compare_run.py runs/quickstart --config examples/quickstart/audit.yaml --json agreement.json

Answers are counted by the rule of the ``refusal`` judge that decides them (``complies``: none does) and by whether the
target drew them. Counts are of draws as they came: what the run's estimates would be is for ``tailrisk rejudge``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tailrisk.configfile import load_config
from tailrisk.judges.linear import LinearJudge, read_judge
from tailrisk.judges.refusal import explain
from tailrisk.prompts import load_prompts
from tailrisk.records import Verdict
from tailrisk.store import final_results

HERE = Path(__file__).parent


class Drawn(NamedTuple):
    prompt: str
    by_target: bool
    rule: str
    run: bool
    trained: bool
    score: float


def drawn(run: Path, config: Path, judge: LinearJudge) -> Iterator[Drawn]:
    """All answers of which the run's judge gave a verdict."""
    prompts = {prompt.id: prompt.text for prompt in load_prompts(load_config(config))}
    for result in final_results(run):
        batch = result.batch
        judged = judge.judge(prompts[batch.prompt_id], result.texts)
        for i, text in enumerate(result.texts):
            if result.verdicts[i] == Verdict.UNDETERMINED:
                continue
            yield Drawn(
                batch.prompt_id,
                batch.component == 0,
                explain(prompts[batch.prompt_id], text) or "complies",
                result.verdicts[i] == Verdict.HARM,
                judged.verdicts[i] == Verdict.HARM,
                float(judged.scores[i]),
            )


def kappa(table: np.ndarray) -> float | None:
    """Cohen's, of a 2 x 2 table of counts; None where both judges say the same of everything."""
    n = table.sum()
    chance = float((table.sum(0) * table.sum(1)).sum() / n**2)
    return None if chance == 1 else (float(np.trace(table)) / n - chance) / (1 - chance)


def compared(draws: list[Drawn]) -> dict[str, Any]:
    """Counts of (this run's verdict, the trained judge's), and the trained judge's scores in between."""
    table = np.zeros((2, 2))
    for d in draws:
        table[int(d.run), int(d.trained)] += 1
    return {
        "draws": len(draws),
        "both_safe": int(table[0, 0]),
        "only_trained_harm": int(table[0, 1]),
        "only_run_harm": int(table[1, 0]),
        "both_harm": int(table[1, 1]),
        "agreement": float(np.trace(table)) / len(draws),
        "kappa": kappa(table),
        "score_quartiles": np.percentile([d.score for d in draws], (25, 50, 75)).tolist(),
    }


def by_prompt(draws: list[Drawn]) -> float | None:
    """How well the trained score tells the run's harm from the rest within a prompt: the mean over prompts, by their
    pairs, of the probability that harm scores higher; None where no prompt has both."""
    won = pairs = 0.0
    for prompt in sorted({d.prompt for d in draws}):
        harm = np.array([d.score for d in draws if d.prompt == prompt and d.run])
        safe = np.array([d.score for d in draws if d.prompt == prompt and not d.run])
        above = harm[:, None] - safe[None, :]
        won += (above > 0).sum() + (above == 0).sum() / 2
        pairs += above.size
    return won / pairs if pairs else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="its folder; only read")
    parser.add_argument("--config", type=Path, default=HERE.parent / "quickstart" / "audit.yaml")
    parser.add_argument("--weights", type=Path, default=HERE / "judge.safetensors")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    draws = list(drawn(args.run, args.config, read_judge(args.weights)))
    parts = {"all": draws, "target": [d for d in draws if d.by_target]}
    parts |= {"proposals": [d for d in draws if not d.by_target]}
    parts |= {rule: [d for d in draws if d.rule == rule] for rule in sorted({d.rule for d in draws})}
    found = {name: compared(part) for name, part in parts.items() if part}
    for name, part in found.items():
        print(
            f"{name:11}", ", ".join(f"{key} {value}" for key, value in part.items() if "quartiles" not in key)
        )
    found["within_prompts"] = {"area": by_prompt(draws)}
    print(f"within prompts, harm of the run scores higher: {found['within_prompts']['area']}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
