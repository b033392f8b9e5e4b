"""How fast the engine samples and scores, against ``transformers``' own ``generate``.

    python examples/benchmarks/engine.py [--quick] [--json FILE]

The embedded SmolLM2-135M-Instruct in bfloat16, one prompt, a batch of draws at temperature 1; the prompt and
the length limit are such that about half of the responses stop early. Rounds alternate between the engine and
``generate`` with the same prompt, batch, dtype and settings, so that a busy machine slows both; the figures
are medians over rounds of each round's ratio. Tokens are those of the responses, stop tokens included and
nothing after them, in all columns: texts shared by several draws count once per draw, although the engine
computes them once. "Alone" is the engine with that sharing off. Scoring is of the engine's responses.

The larger the batch, the closer a decoding step comes to the efficiency of a scoring pass, so the ratio of
scoring to sampling falls with ``--batch`` while all speeds rise: on two cores the goal for scoring was met
at 16 draws (the default: the embedded audit's batches have about 20) and missed at 32, where it was 2.6.
Wall time is what counts; ratios of processor time are given too, as they suffer less from other programs.
Exit status 1: a goal was missed (sampling at least 1.2 times ``generate``, scoring 3 times sampling).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from transformers import GenerationConfig

from tailrisk.models.engine import View
from tailrisk.models.loading import (
    load_generation_config,
    load_model,
    load_tokenizer,
    quiet_transformers,
    resolve_model,
)
from tailrisk.models.sampling import Limits, Part, Phase, sample
from tailrisk.models.scoring import token_log_probs
from tailrisk.models.tokens import render_prompt, stop_ids
from tailrisk.records import Prompt, Samples

T = TypeVar("T")
SAMPLING_GOAL, SCORING_GOAL = 1.2, 3.0


class Speed(NamedTuple):
    """Tokens a second of wall time and of processor time."""

    wall: float
    cpu: float


class Round(NamedTuple):
    """One round: what each way of drawing the batch achieved, and which share of it stopped early."""

    engine: Speed
    alone: Speed
    generate: Speed
    scoring: Speed
    stopped: float
    generate_stopped: float
    rounding: float


def main() -> int:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    with quiet_transformers():
        bench = Bench(options)
        bench.warm_up()
        rounds = []
        for number in range(options.rounds):
            rounds.append(bench.round(options.seed + 1 + number))
            last = rounds[-1]
            print(
                f"round {number + 1}: sampling {last.engine.wall / last.generate.wall:.2f} x generate, "
                f"scoring {last.scoring.wall / last.engine.wall:.2f} x sampling",
                flush=True,
            )
    result = summary(rounds, options)
    report(result)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return 0 if result["goals_met"] else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 rounds instead of 5")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE")
    parser.add_argument(
        "--model", default="smollm2", help="model folder or hub id (default: the embedded one)"
    )
    parser.add_argument("--prompt", default="What is the capital of France?")
    parser.add_argument("--batch", type=int, default=16, help="draws at once (default 16)")
    parser.add_argument("--tokens", type=int, default=64, help="most new tokens (default 64)")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


class Bench:
    """The model, the prompt and the settings that all columns share."""

    def __init__(self, options: argparse.Namespace) -> None:
        ref = resolve_model(options.model, Path.cwd())
        tokenizer = load_tokenizer(ref)
        self.model = load_model(ref, "bfloat16")
        self.view = View(self.model)
        prompt = Prompt(id="benchmark", messages=({"role": "user", "content": options.prompt},))
        self.prompt_ids = render_prompt(tokenizer, prompt)
        self.limits = Limits(options.tokens, stop_ids(tokenizer, load_generation_config(ref)))
        self.batch = options.batch

    def warm_up(self) -> None:
        """A short round, so that the first measured one does not pay for what is set up once."""
        limits, self.limits = self.limits, self.limits._replace(max_new_tokens=4)
        self.round(0)
        self.limits = limits

    def round(self, seed: int) -> Round:
        own, engine = timed(lambda: self.sample(seed))
        reference, generate = timed(lambda: self.generate(seed))
        single, alone = timed(lambda: self.sample(seed, share=False))
        scores, scoring = timed(lambda: token_log_probs(self.view, self.prompt_ids, own.tokens))
        tokens = sum(len(t) for t in own.tokens)
        difference = np.array([s.sum() for s in scores.tokens]) - own.log_q
        return Round(
            engine=engine(tokens),
            alone=alone(sum(len(t) for t in single.tokens)),
            generate=generate(sum(reference)),
            scoring=scoring(tokens),
            stopped=float(np.mean([len(t) < self.limits.max_new_tokens for t in own.tokens])),
            generate_stopped=float(np.mean([n < self.limits.max_new_tokens for n in reference])),
            rounding=float(difference.std()),
        )

    def sample(self, seed: int, share: bool = True) -> Samples:
        steps = self.limits.max_new_tokens
        phases = [Phase(steps, (Part(self.view, self.prompt_ids),))]
        return sample(phases, self.limits, self.batch, seed, share=share)

    def generate(self, seed: int) -> list[int]:
        """Lengths of the responses, up to and with their stop tokens."""
        torch.manual_seed(seed)
        ids = torch.tensor([self.prompt_ids] * self.batch, device=self.model.device)
        settings = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self.limits.max_new_tokens,
            eos_token_id=list(self.limits.stop_ids),
            pad_token_id=self.limits.stop_ids[0],
        )
        model: Any = self.model
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        return [
            next((i + 1 for i, t in enumerate(row) if t in self.limits.stop_ids), len(row))
            for row in out[:, len(self.prompt_ids) :].tolist()
        ]


def timed(work: Callable[[], T]) -> tuple[T, Callable[[int], Speed]]:
    """The result of ``work`` and its speed as a function of its number of tokens."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return result, lambda tokens: Speed(tokens / wall, tokens / cpu)


def summary(rounds: list[Round], options: argparse.Namespace) -> dict[str, Any]:
    def middle(value: Callable[[Round], float]) -> float:
        return statistics.median(value(r) for r in rounds)

    ratios = {
        "sampling_to_generate": middle(lambda r: r.engine.wall / r.generate.wall),
        "alone_to_generate": middle(lambda r: r.alone.wall / r.generate.wall),
        "scoring_to_sampling": middle(lambda r: r.scoring.wall / r.engine.wall),
        "scoring_to_generate": middle(lambda r: r.scoring.wall / r.generate.wall),
    }
    cpu = {
        "sampling_to_generate": middle(lambda r: r.engine.cpu / r.generate.cpu),
        "alone_to_generate": middle(lambda r: r.alone.cpu / r.generate.cpu),
        "scoring_to_sampling": middle(lambda r: r.scoring.cpu / r.engine.cpu),
        "scoring_to_generate": middle(lambda r: r.scoring.cpu / r.generate.cpu),
    }
    return {
        "settings": {
            "model": options.model,
            "batch": options.batch,
            "max_new_tokens": options.tokens,
            "rounds": len(rounds),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "machine": platform.processor() or platform.machine(),
        },
        "tokens_per_second": {
            name: middle(lambda r, name=name: getattr(r, name).wall)
            for name in ("engine", "alone", "generate", "scoring")
        },
        "ratios": ratios,
        "processor_time_ratios": cpu,
        "stopped_early": middle(lambda r: r.stopped),
        "generate_stopped_early": middle(lambda r: r.generate_stopped),
        "score_minus_sample_sd": middle(lambda r: r.rounding),
        "goals": {"sampling_to_generate": SAMPLING_GOAL, "scoring_to_sampling": SCORING_GOAL},
        "goals_met": ratios["sampling_to_generate"] >= SAMPLING_GOAL
        and ratios["scoring_to_sampling"] >= SCORING_GOAL,
    }


def report(result: dict[str, Any]) -> None:
    settings, speeds = result["settings"], result["tokens_per_second"]
    print(
        "{model}, bfloat16, batch {batch}, up to {max_new_tokens} tokens, {rounds} rounds, "
        "{threads} threads".format(**settings)
    )
    print(
        f"stopped early: engine {result['stopped_early']:.0%}, "
        f"generate {result['generate_stopped_early']:.0%}"
    )
    print(f"log-probability, scored minus sampled: sd {result['score_minus_sample_sd']:.2f} a response")
    for name, speed in speeds.items():
        print(f"  {name:<10}{speed:8.0f} tokens/s")
    goals = result["goals"]
    for name, ratio in result["ratios"].items():
        goal = f"  (goal {goals[name]:g})" if name in goals else ""
        print(f"  {name:<22}{ratio:6.2f}   processor time {result['processor_time_ratios'][name]:6.2f}{goal}")


if __name__ == "__main__":
    sys.exit(main())
