"""Holds an audit's estimates against brute-force counts of the same prompts (see ``brute_force.py``).

    python examples/benchmarks/compare_brute_force.py --run runs/quickstart --json counts.json

For prompt i: e_i the audit's estimate with standard error s_i, b_i = hits / draws, n_i the draws,
m_i = (e_i + b_i) / 2. Two questions:

* *overlap*: does the audit's working interval meet the exact binomial one? A missing interval does not.
* *pooled ratio*: R = sum w_i e_i / sum w_i b_i with w_i = 1 / (m_i v_i) and v_i = (s_i / e_i)^2 +
  (1 - m_i) / (n_i m_i): each prompt's ratio weighted by the inverse of its relative variance. Both sides of
  a prompt have the same weight, so R is near 1 when the audit is right, whatever the spread of the
  probabilities; m_i, being symmetric in the two, favours neither. By the delta method
  se(R)^2 = sum w_i^2 (s_i^2 + R^2 m_i (1 - m_i) / n_i) / (sum w_i b_i)^2.

In half precision the law depends on the processor, so both are to be of the same kind of machine; the kind that
counted is printed.

Exit code 0 if at least 7 in 8 prompts (``--share``) overlap and R is within 2 standard errors of 1, else 1.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from tailrisk.errors import InputError, TailriskError

FEWEST = 8


class Pair(NamedTuple):
    """One prompt, both ways; ``working`` is None where the audit shows no working interval."""

    prompt_id: str
    estimate: float
    se: float
    working: tuple[float, float] | None
    hits: int
    draws: int
    binomial: tuple[float, float]

    @property
    def overlaps(self) -> bool:
        if self.working is None:
            return False
        return self.working[0] <= self.binomial[1] and self.binomial[0] <= self.working[1]


class Ratio(NamedTuple):
    value: float
    se: float


def pooled_ratio(estimates: ArrayLike, ses: ArrayLike, hits: ArrayLike, draws: ArrayLike) -> Ratio:
    """R and its standard error as in the module's docstring; all arguments are [prompts].

    Prompts without a hit on either side carry no information on the ratio and are left out; NaN if no
    brute-force hit is left.
    """
    e, s, h, n = (np.asarray(x, dtype=np.float64) for x in (estimates, ses, hits, draws))
    told = (e > 0) | (h > 0)
    e, s, b, n = e[told], s[told], (h / n)[told], n[told]
    if not b.sum():
        return Ratio(math.nan, math.nan)
    m = (e + b) / 2
    # An estimate of nothing has no relative error of its own: one is the most that its partner leaves.
    relative = np.divide(s, e, out=np.ones_like(e), where=e > 0)
    w = 1 / (m * (relative**2 + (1 - m) / (n * m)))
    ratio = (w * e).sum() / (w * b).sum()
    variance = (w**2 * (s**2 + ratio**2 * m * (1 - m) / n)).sum() / (w * b).sum() ** 2
    return Ratio(float(ratio), float(np.sqrt(variance)))


def pairs(estimates: Sequence[Mapping[str, Any]], counts: Mapping[str, Any]) -> list[Pair]:
    """The counted prompts with their estimates; InputError where one was not audited or not counted."""
    by_id = {e["prompt_id"]: e for e in estimates}
    found = []
    for prompt_id, record in counts["prompts"].items():
        if prompt_id not in by_id:
            raise InputError(f"prompt {prompt_id!r} was counted but is not in the run's estimates")
        if not record["draws"]:
            raise InputError(f"prompt {prompt_id!r} has no draws yet; run brute_force.py to its end first")
        e = by_id[prompt_id]
        working = None if e["working"] is None else (e["working"][0], e["working"][1])
        low, high = record["interval"]
        found.append(
            Pair(
                prompt_id,
                e["estimate"],
                e["standard_error"] or 0.0,
                working,
                record["hits"],
                record["draws"],
                (low, high),
            )
        )
    return found


def check_same(manifest: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
    """InputError unless the run and the counts are of one target and one judge."""
    for key in ("target", "judge"):
        if manifest["config"][key] != counts[key]:
            raise InputError(f"the run and the counts have different settings under {key!r}: not comparable")


def verdict(found: Sequence[Pair], share: float) -> tuple[bool, list[str]]:
    """Whether the audit passes, and the lines to print."""
    lines = [
        f"{'prompt':<24} {'audit':>9} {'working interval':>22} {'brute force':>13} {'95 % interval':>22}"
    ]
    for p in found:
        working = "none" if p.working is None else f"[{p.working[0]:.2e}, {p.working[1]:.2e}]"
        brute = f"{p.hits}/{p.draws}"
        exact = f"[{p.binomial[0]:.2e}, {p.binomial[1]:.2e}]"
        mark = "" if p.overlaps else "  apart"
        lines.append(f"{p.prompt_id:<24} {p.estimate:9.2e} {working:>22} {brute:>13} {exact:>22}{mark}")
    overlaps, needed = sum(p.overlaps for p in found), math.ceil(share * len(found))
    ratio = pooled_ratio(*zip(*((p.estimate, p.se, p.hits, p.draws) for p in found), strict=True))
    near = abs(ratio.value - 1) <= 2 * ratio.se
    lines.append(f"overlap: {overlaps} of {len(found)} (asked: {needed})")
    z = (ratio.value - 1) / ratio.se if ratio.se > 0 else math.nan
    shown = f"{ratio.value:.3f} +- {ratio.se:.3f} (z = {z:+.2f}; asked: within 2)"
    lines.append(f"pooled ratio audit / brute force: {shown}")
    enough = len(found) >= FEWEST
    if not enough:
        lines.append(f"only {len(found)} prompts; at least {FEWEST} are asked for")
    return enough and overlaps >= needed and near, lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="An audit's estimates against brute-force counts.")
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--json", type=Path, required=True, help="counts written by brute_force.py")
    parser.add_argument("--share", type=float, default=7 / 8, help="least share of prompts that overlap")
    args = parser.parse_args(argv)
    counts, estimates = _read(args.json), _read(args.run / "estimates.json")
    check_same(_read(args.run / "manifest.json"), counts)
    passed, lines = verdict(pairs(estimates["estimates"], counts), args.share)
    if counts["target"]["dtype"] != "float32":
        lines.append(f"counted on {counts['processor']}: a run on another processor is of another law")
    print("\n".join([*lines, "passed" if passed else "FAILED"]))
    return 0 if passed else 1


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TailriskError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
