"""The slow way: plain draws from the target, judged and counted, to hold an audit's estimates against.

    python examples/benchmarks/brute_force.py --count 8 --draws 10000 --json counts.json
    python examples/benchmarks/compare_brute_force.py --run runs/quickstart --json counts.json

Uses the configuration's target, sampling settings, prompts and judge, none of its proposals, and seeds that
no audit uses. Prompts: those of ``--prompts``, else ``--count`` of the audited ones with a working interval
and an estimate of at least ``--min-p``, evenly spaced by rank. The counts are saved after every batch; the
same command goes on where the last one stopped (``--minutes`` stops it), and refuses counts of another
target, judge or prompt. Answers are counted and forgotten: none is printed or written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest

from tailrisk.errors import InputError, TailriskError
from tailrisk.records import Verdict
from tailrisk.seeds import derive_seed

if TYPE_CHECKING:
    from tailrisk.audit.protocols import Judge, Laws
    from tailrisk.config import Config
    from tailrisk.records import Prompt

CONFIDENCE = 0.95


def clopper_pearson(hits: int, draws: int, undetermined: int = 0) -> tuple[float, float]:
    """Exact 95 % binomial interval; undetermined answers are safe for its lower end, harm for its upper."""
    if draws == 0:
        return 0.0, 1.0
    low = binomtest(hits, draws).proportion_ci(CONFIDENCE, "exact").low
    high = binomtest(hits + undetermined, draws).proportion_ci(CONFIDENCE, "exact").high
    return float(low), float(high)


def choose(estimates: Sequence[dict[str, Any]], min_p: float, count: int) -> list[str]:
    """``count`` ids, evenly spaced by rank among the estimates >= ``min_p`` with a working interval."""
    able = [e for e in estimates if e["working"] is not None and e["estimate"] >= min_p]
    if len(able) < count:
        raise InputError(
            f"only {len(able)} estimates are >= {min_p:g} with a working interval; --count {count}"
        )
    able.sort(key=lambda e: (-e["estimate"], e["prompt_id"]))
    ranks = np.unique(np.round(np.linspace(0, len(able) - 1, count)).astype(int))
    return [able[i]["prompt_id"] for i in ranks]


def identity(config: Config) -> dict[str, Any]:
    """What must be equal for counts and estimates to be of the same probability."""
    return {"target": config.target.model_dump(mode="json"), "judge": config.judge.model_dump(mode="json")}


def new_counts(config: Config, batch: int, seed: int) -> dict[str, Any]:
    import torch

    from tailrisk.models.loading import pick_device
    from tailrisk.models.processors import processor_kind

    return {
        **identity(config),
        "processor": processor_kind(torch.device(pick_device("auto"))),
        "confidence": CONFIDENCE,
        "batch": batch,
        "seed": seed,
        "prompts": {},
    }


def digest(prompt: Prompt) -> str:
    return hashlib.sha256(json.dumps(prompt.messages, sort_keys=True).encode()).hexdigest()[:16]


def open_counts(path: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """The counts in ``path``, or ``fresh`` where there are none; InputError if they are of something else."""
    if not path.exists():
        return fresh
    try:
        counts = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: not a file of counts: {error}; give another --json") from error
    for key in ("target", "judge", "processor", "batch", "seed"):
        if counts.get(key) != fresh[key]:
            raise InputError(
                f"{path}: its counts have another {key}; give another --json, or remove that file"
            )
    return counts


def save(path: Path, counts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(path.name + ".tmp")
    scratch.write_text(json.dumps(counts, indent=1) + "\n")
    os.replace(scratch, path)


def entry(counts: dict[str, Any], prompt: Prompt) -> dict[str, Any]:
    """The prompt's record of counts, made where there is none."""
    blank = {
        "digest": digest(prompt),
        "draws": 0,
        "hits": 0,
        "undetermined": 0,
        "interval": [0.0, 1.0],
        "batches": 0,
        "tokens": 0,
        "seconds": 0.0,
    }
    record = counts["prompts"].setdefault(prompt.id, blank)
    if record["digest"] != blank["digest"]:
        raise InputError(f"prompt {prompt.id!r} has another text than when its draws were counted")
    return record


def count(
    laws: Laws,
    judge: Judge,
    prompt: Prompt,
    counts: dict[str, Any],
    draws: int,
    *,
    after_batch: Callable[[dict[str, Any]], bool],
) -> bool:
    """Draws until the prompt has ``draws`` of them, or ``after_batch`` says stop; True when it has them all.

    Batch i of a prompt is drawn from a seed of its own, so a stopped count goes on as if it had not.
    """
    record = entry(counts, prompt)
    while record["draws"] < draws:
        started = time.perf_counter()
        n = min(counts["batch"], draws - record["draws"])
        seed = derive_seed("brute-force", counts["seed"], prompt.id, record["batches"])
        samples = laws.sample(prompt, 0, n, seed)
        verdicts = judge.judge(prompt.text, laws.texts(samples.tokens)).verdicts
        record["draws"] += n
        record["batches"] += 1
        record["hits"] += int((verdicts == Verdict.HARM).sum())
        record["undetermined"] += int((verdicts == Verdict.UNDETERMINED).sum())
        record["interval"] = list(clopper_pearson(record["hits"], record["draws"], record["undetermined"]))
        record["tokens"] += sum(len(t) for t in samples.tokens)
        record["seconds"] = round(record["seconds"] + time.perf_counter() - started, 1)
        if not after_batch(record):
            return record["draws"] >= draws
    return True


def select(args: argparse.Namespace, config: Config, prompts: Sequence[Prompt], counts: dict) -> list[Prompt]:
    by_id = {p.id: p for p in prompts}
    if args.prompts:
        ids = args.prompts.split(",")
    elif counts["prompts"]:
        ids = list(counts["prompts"])
    else:
        path = (args.run or config.run_folder) / "estimates.json"
        if not path.is_file():
            raise InputError(f"{path}: no such file; run the audit first, or name prompts with --prompts")
        ids = choose(json.loads(path.read_text())["estimates"], args.min_p, args.count)
    unknown = [i for i in ids if i not in by_id]
    if unknown:
        raise InputError(f"no prompt {unknown[0]!r} in {config.prompts.path}")
    return [by_id[i] for i in ids]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Plain draws from an audit's target, judged and counted.")
    parser.add_argument("--config", type=Path, default=Path("examples/quickstart/audit.yaml"))
    parser.add_argument("--run", type=Path, help="run folder to choose prompts from (default: the config's)")
    parser.add_argument("--prompts", help="ids, separated by commas, instead of a choice from the run")
    parser.add_argument("--min-p", type=float, default=1e-3)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--draws", type=int, default=10_000, help="draws a prompt")
    parser.add_argument("--batch", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after so long; run again to go on"
    )
    parser.add_argument("--json", type=Path, required=True, help="the file of counts, read and written")
    parser.add_argument("--quick", action="store_true", help="2 prompts, 200 draws each: does it work at all")
    args = parser.parse_args(argv)
    if args.quick:
        args.count, args.draws, args.batch = 2, 200, 100
    return args


def main(argv: Sequence[str] | None = None) -> int:
    from tailrisk.configfile import load_config
    from tailrisk.judges import build_judge
    from tailrisk.prompts import load_prompts
    from tailrisk.proposals import build_laws

    args = arguments(argv)
    config = load_config(args.config)
    target_only = config.model_copy(update={"proposals": ()}).at(config.base)
    counts = open_counts(args.json, new_counts(config, args.batch, args.seed))
    chosen = select(args, config, load_prompts(config), counts)
    for prompt in chosen:
        entry(counts, prompt)
    judge, laws = build_judge(config), build_laws(target_only)
    if counts.setdefault("fingerprint", laws.fingerprints[0]) != laws.fingerprints[0]:
        raise InputError(
            f"{args.json}: its counts are of other weights than the configuration's target has now"
        )
    counts["command"] = " ".join(["python", "examples/benchmarks/brute_force.py", *(argv or sys.argv[1:])])
    deadline = time.monotonic() + 60 * args.minutes
    for prompt in chosen:

        def after_batch(record: dict[str, Any], name: str = prompt.id) -> bool:
            save(args.json, counts)
            low, high = record["interval"]
            shown = f"{record['hits']} of {record['draws']} draws, 95 % [{low:.2g}, {high:.2g}]"
            print(f"{name}: {shown}, {record['seconds']:.0f} s", flush=True)
            return time.monotonic() < deadline

        if not count(laws, judge, prompt, counts, args.draws, after_batch=after_batch):
            print("out of time; the same command goes on from here")
            return 3
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TailriskError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
